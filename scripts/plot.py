#!/usr/bin/env python3
"""Pictures of results: accuracy over tasks, and accuracy against what it costs.

usage: scripts/plot.py [--output DIR] [--suffix png,svg] RESULT_OR_FOLDER...

Writes DIR/accuracy (mean over the tasks seen so far, with the deviation over seeds as a band),
DIR/forgetting (the same), DIR/cost (final accuracy against training MACs, peak bytes and joules)
and DIR/blocks (the tokens that enter each block of a ViT in a training step that runs it, and the
share of steps that do). Results with one configuration but for the seed are one line. Needs python3-matplotlib.
"""
import argparse
import json
import os
import statistics
import sys

# Okabe and Ito's colours, told apart by colour-blind readers; markers and dashes tell them apart in
# print.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = "osD^vPX*"
DASHES = ["-", "--", "-.", ":"]
IGNORED = {"name", "seed", "threads", "device"}


def results_below(paths):
    for path in paths:
        if os.path.isfile(path):
            yield path
        found = False
        for folder, _, files in sorted(os.walk(path)):
            if "result.json" in files:
                found = True
                yield os.path.join(folder, "result.json")
        if not found and not os.path.isfile(path):
            sys.exit(f"plot.py: {path}: no result.json there")


def groups(paths):
    """Finished results by their configuration without the seed: {label: [result, ...]}."""
    by_configuration = {}
    for path in results_below(paths):
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
        if not result.get("complete"):
            print(f"plot.py: {path} is unfinished and left out", file=sys.stderr)
            continue
        config = {k: v for k, v in result["config"].items() if k not in IGNORED}
        key = json.dumps([config, result["inputs"]["dataset"]], sort_keys=True)
        by_configuration.setdefault(key, []).append(result)
    labelled = {}
    for results in by_configuration.values():
        label, number = results[0]["name"], 2
        while label in labelled:
            label, number = f"{results[0]['name']} ({number})", number + 1
        labelled[label] = results
    return labelled


def mean_so_far(matrix):
    return [statistics.fmean(row[: t + 1]) if None not in row[: t + 1] else None
            for t, row in enumerate(matrix)]


def forgetting_so_far(matrix):
    values = [0.0]
    for t in range(1, len(matrix)):
        if any(matrix[s][i] is None for s in range(t + 1) for i in range(s + 1)):
            return [None] * len(matrix)
        values.append(statistics.fmean(
            max(matrix[s][i] for s in range(i, t + 1)) - matrix[t][i] for i in range(t)))
    return values


def spread(values):
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def style(i):
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


def plot_over_tasks(plt, runs, curve, label, save):
    figure, axes = plt.subplots(figsize=(6, 4))
    for i, (name, results) in enumerate(runs.items()):
        curves = [curve(r["accuracy"]["class_incremental"]) for r in results]
        steps = [t for t in range(len(curves[0])) if all(c[t] is not None for c in curves)]
        points = [spread([c[t] for c in curves]) for t in steps]
        x = [t + 1 for t in steps]
        axes.plot(x, [m for m, _ in points], DASHES[i // len(COLOURS) % len(DASHES)], markersize=4,
                  label=f"{name} (n = {len(results)})", **style(i))
        axes.fill_between(x, [m - d for m, d in points], [m + d for m, d in points], alpha=0.2,
                          color=style(i)["color"], linewidth=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("tasks learned")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save(figure)


def plot_cost(plt, runs, save):
    costs = [("training, GMAC", lambda r: sum(r["cost"]["total"]["macs"]["train"].values()) / 1e9),
             ("peak of tensors, MB", lambda r: r["cost"]["total"]["peak_tensor_bytes"] / 1e6),
             ("energy, J", lambda r: r["cost"]["total"]["energy_joules"])]
    if any(r["cost"]["total"]["energy_joules"] is None for rs in runs.values() for r in rs):
        costs.pop()
    figure, all_axes = plt.subplots(1, len(costs), figsize=(4.5 * len(costs), 4), squeeze=False,
                                    sharey=True)
    for axes, (cost, of) in zip(all_axes[0], costs):
        for i, (name, results) in enumerate(runs.items()):
            y, dy = spread([r["metrics"]["average_accuracy"] for r in results])
            x, dx = spread([of(r) for r in results])
            axes.errorbar(x, y, dy, dx, capsize=2, linestyle="", label=name, **style(i))
        values = [of(r) for results in runs.values() for r in results]
        if max(values) > 10 * min(values) > 0:
            axes.set_xscale("log")
        axes.set_xlabel(cost)
        axes.grid(alpha=0.3, which="both")
    all_axes[0][0].set_ylabel("average accuracy, %")
    all_axes[0][0].legend(fontsize="small")
    save(figure)


def plot_blocks(plt, runs, save):
    def per_block(results, key):
        rows = [(r["cost"]["per_iteration"].get("efficiency") or {}).get(key) for r in results]
        return None if None in rows else [statistics.fmean(column) for column in zip(*rows)]

    panels = [("tokens_per_block_mean", "tokens that enter", 1),
              ("block_run_fraction", "training steps that run the block, %", 100)]
    figure, all_axes = plt.subplots(1, 2, figsize=(9, 4))
    drawn = set()
    for i, (name, results) in enumerate(runs.items()):
        curves = [per_block(results, key) for key, _, _ in panels]
        # Methods whose steps look alike are one line, under the first one's name.
        if None in curves or str(curves) in drawn:
            continue
        drawn.add(str(curves))
        for axes, curve, (_, _, scale) in zip(all_axes, curves, panels):
            axes.plot(range(1, len(curve) + 1), [scale * y for y in curve],
                      DASHES[i // len(COLOURS) % len(DASHES)], markersize=4, label=name, **style(i))
    if not drawn:
        return plt.close(figure)
    for axes, (_, label, _) in zip(all_axes, panels):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("block")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.08 * axes.dataLim.ymax)
        axes.grid(alpha=0.3)
    all_axes[0].legend(fontsize="small")
    save(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="+", metavar="RESULT_OR_FOLDER")
    parser.add_argument("--output", default="results/plots")
    parser.add_argument("--suffix", default="png,svg")
    arguments = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot.py: needs matplotlib: apt install python3-matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    runs = groups(arguments.paths)
    if not runs:
        sys.exit("plot.py: no finished result")
    os.makedirs(arguments.output, exist_ok=True)

    def saver(name):
        def save(figure):
            for suffix in arguments.suffix.split(","):
                path = os.path.join(arguments.output, f"{name}.{suffix}")
                figure.savefig(path, bbox_inches="tight", dpi=150)
                print(path)
            plt.close(figure)
        return save

    plot_over_tasks(plt, runs, mean_so_far, "mean accuracy over tasks so far, %", saver("accuracy"))
    plot_over_tasks(plt, runs, forgetting_so_far, "forgetting, points", saver("forgetting"))
    plot_cost(plt, runs, saver("cost"))
    plot_blocks(plt, runs, saver("blocks"))


if __name__ == "__main__":
    main()
