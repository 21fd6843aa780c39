#!/usr/bin/env bash
# Runs the tests of rep sweep --engine slurm against a real SLURM: installs Debian's slurm-wlm and
# munge where they are missing, starts a cluster of one node in a temporary folder, on the loopback
# interface, and stops it again. Nothing of the system's own SLURM or munge is touched.
#
# usage: scripts/test_slurm.sh [BUILD]      (default: build/release, built with its tests)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

case ${1:-} in
  -h | --help) print_help; exit 0 ;;
  -*) echo "error: unknown option '$1'; see scripts/test_slurm.sh --help" >&2; exit 2 ;;
esac
build=${1:-build/release}
[[ -x $build/tests/slurm_test ]] || fail "$build/tests/slurm_test is not built; run scripts/setup.sh --tests"

export PATH=$PATH:/usr/sbin
missing=no
for program in slurmctld slurmd sbatch munged; do
  command -v "$program" >/dev/null || missing=yes  # of several names, command -v is content with one
done
if [[ $missing == yes ]]; then
  say "installing slurm-wlm and munge"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
    install --no-install-recommends slurm-wlm munge >/dev/null ||
    fail "slurm-wlm and munge cannot be installed; have an administrator install them"
fi

folder=$(mktemp -d /tmp/rep-slurm.XXXXXX)
daemons=()
clean_up() {
  if ((${#daemons[@]} > 0)); then kill "${daemons[@]}" 2>/dev/null || true; fi
  wait
  rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

host=$(hostname -s) user=$(id -un)
# Two ports that most likely nobody listens on.
port=$((20000 + $$ % 20000))
cat >"$folder/slurm.conf" <<END
ClusterName=rep
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=0,bf_interval=1,requeue_setup_env_fail
JobRequeue=1
KillWait=20
ReturnToService=2
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=rep Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$folder/slurm.conf
mkdir "$folder/state" "$folder/spool"
chmod 755 "$folder"
(umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")

# Starts a daemon in the background; what it says is in a file of its name.
start() {
  "$@" >"$folder/$1.log" 2>&1 &
  daemons+=($!)
}
say "starting a cluster of one node in $folder"
start munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --seed-file="$folder/munge.seed" --log-file="$folder/munge.log"
for ((i = 0; i < 50; ++i)); do
  if [[ -S $folder/munge.socket ]]; then break; fi
  sleep 0.1
done
start slurmctld -D
start slurmd -D
for ((i = 0; i < 300; ++i)); do
  if [[ $(sinfo --noheader --format=%T 2>/dev/null) == idle ]]; then break; fi
  sleep 0.1
done
if [[ $(sinfo --noheader --format=%T 2>&1) != idle ]]; then
  tail -n 5 "$folder"/*.log >&2
  fail "the node did not come up in 30 s; what its daemons said last is above"
fi
"$build/tests/slurm_test"
