#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/progress.h"
#include "study/sweep_folder.h"
#include "study/sweep_plan.h"

namespace rep {

/// What a run asks of SLURM, in sbatch's own words; "" leaves it to the cluster. Its cores are the
/// largest `threads` of the configurations, or 1.
struct SlurmOptions {
  std::string time, partition, gres;
};

/// Submits every run that is neither finished, nor in a queue, nor at work as one job array, and
/// returns. OUTPUT/slurm then holds sweep.sh (the script), jobs.json (which job has which run) and
/// a log a job.
///
/// A run that SLURM stops saves its state first. Out of time it asks to be requeued (unless it
/// got no further), and preempted it is requeued by SLURM; either way it goes on from there.
///
/// Throws Error when there is no SLURM here, and for what sbatch refuses.
void submit_sweep(const SweepOptions& options, const SlurmOptions& slurm,
                  const std::vector<SweepRun>& runs, Progress& progress);

/// The batch script that submit_sweep would hand to sbatch now.
std::string describe_batch(const SweepOptions& options, const SlurmOptions& slurm,
                           const std::vector<SweepRun>& runs);

/// What SLURM knows of the runs below OUTPUT, by folder name: those queued and running, and those
/// whose job ended without success, with SLURM's word for how. Asks squeue, then sacct where
/// accounting is set up. Throws Error when runs were submitted and squeue does not answer.
std::map<std::string, RunStanding> slurm_standings(const std::string& output);

/// A line for each run in OUTPUT/sweep.json, with its state and, where there is one, the reason;
/// then how many there are of each state. Throws Error.
std::string describe_status(const std::string& output);

}  // namespace rep
