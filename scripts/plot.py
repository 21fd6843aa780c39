#!/usr/bin/env python3
"""Pictures of results: accuracy over tasks, and accuracy against what it costs.

usage: scripts/plot.py [--output DIR] [--suffix png,svg] [--rep build/release/rep] RESULT_OR_FOLDER...
       rep report --format json ... | scripts/plot.py -

Writes DIR/accuracy (mean over the tasks seen so far, with the deviation over seeds as a band),
DIR/forgetting (the same), DIR/cost (final accuracy against training MACs, peak bytes and joules, with
an arrow from each method to the same with REP) and DIR/blocks (the tokens that enter each block of a ViT in a training step that runs it, and the
share of steps that do). What is one line, its colour and its marks is as `rep report` says: a row of
its table. Needs python3-matplotlib.
"""
import argparse
import json
import os
import subprocess
import sys

COSTS = [("train_macs", "training compute, billions of MACs", 1e-9),
         ("peak_tensor_bytes", "peak memory of tensors, MB", 1e-6), ("energy_joules", "energy, J", 1)]
MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "cross": "x",
           "triangle_down": "v"}


def read_report(arguments):
    if arguments.paths == ["-"]:
        return json.load(sys.stdin)
    metrics = ",".join(["average_accuracy"] + [key for key, _, _ in COSTS])
    command = [arguments.rep, "report", "--format", "json", "--metrics", metrics] + arguments.paths
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    except FileNotFoundError:
        sys.exit(f"plot.py: {arguments.rep} is not there: build it, or name it with --rep")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # rep has said why
    return json.loads(done.stdout)


def style(row):
    s = row["style"]
    return {"color": s["colour"], "marker": MARKERS[s["marker"]], "markersize": 4,
            "markerfacecolor": "white" if s["hollow"] else s["colour"]}


def dashes(row):
    pixels = row["style"]["dashes"]
    return (0, [p / 1.8 for p in pixels]) if pixels else "-"


def legend(axes):
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)


def arrows(axes, rows, point):
    """From each base to its row with REP (`base`, which rep report found by the runs' identity)."""
    for row in rows:
        if row.get("base") is None:
            continue
        start, end = point(rows[row["base"]]), point(row)
        if start and end:
            axes.annotate("", xy=end, xytext=start,
                          arrowprops={"arrowstyle": "-|>", "color": row["style"]["colour"],
                                      "shrinkA": 5, "shrinkB": 5, "linewidth": 1})


def plot_over_tasks(plt, rows, curve, label, save):
    figure, axes = plt.subplots(figsize=(6, 4))
    for row in rows:
        x, mean, sd = (row["curves"][curve][key] for key in ("x", "mean", "sd"))
        if not x:  # of joint learning, which is tested once
            continue
        axes.plot(x, mean, linestyle=dashes(row), label=row["label"], **style(row))
        axes.fill_between(x, [m - d for m, d in zip(mean, sd)], [m + d for m, d in zip(mean, sd)],
                          alpha=0.16, color=row["style"]["colour"], linewidth=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("tasks learnt")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    legend(axes)
    save(figure)


def plot_cost(plt, rows, save):
    costs = [cost for cost in COSTS if all(row["metrics"].get(cost[0]) for row in rows)]
    if not costs:
        return
    figure, all_axes = plt.subplots(1, len(costs), figsize=(4.5 * len(costs), 4), squeeze=False,
                                    sharey=True)
    for axes, (key, label, scale) in zip(all_axes[0], costs):
        for row in rows:
            x, y = row["metrics"][key], row["metrics"]["average_accuracy"]
            if y is not None:
                axes.errorbar(x["mean"] * scale, y["mean"], y["sd"] or 0, (x["sd"] or 0) * scale, capsize=2,
                              linestyle="", label=row["label"], **style(row))

        def point(row):
            x, y = row["metrics"][key], row["metrics"]["average_accuracy"]
            return (x["mean"] * scale, y["mean"]) if y else None
        arrows(axes, rows, point)
        values = [row["metrics"][key]["mean"] for row in rows]
        if max(values) > 10 * min(values) > 0:
            axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3, which="both")
    all_axes[0][0].set_ylabel("average accuracy at the end, %")
    legend(all_axes[0][-1])
    save(figure)


def plot_blocks(plt, rows, save):
    panels = [("tokens_per_block_mean", "tokens that enter it in a training step", 1),
              ("block_run_fraction", "training steps that run it, %", 100)]
    figure, all_axes = plt.subplots(1, 2, figsize=(9, 4))
    drawn = set()
    for row in rows:
        curves = [row["curves"][key] for key, _, _ in panels]
        # Methods whose steps look alike are one line, under the first one's name.
        if not curves[0]["x"] or str(curves) in drawn:
            continue
        drawn.add(str(curves))
        for axes, curve, (_, _, scale) in zip(all_axes, curves, panels):
            axes.plot(curve["x"], [scale * y for y in curve["mean"]], linestyle=dashes(row),
                      label=row["label"], **style(row))
    if not drawn:
        return plt.close(figure)
    for axes, (_, label, _) in zip(all_axes, panels):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("block of the ViT")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.08 * axes.dataLim.ymax)
        axes.grid(alpha=0.3)
    legend(all_axes[-1])
    save(figure)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="+", metavar="RESULT_OR_FOLDER")
    parser.add_argument("--output", default="results/plots")
    parser.add_argument("--suffix", default="png,svg")
    parser.add_argument("--rep", default=os.path.join(here, "..", "build", "release", "rep"))
    arguments = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot.py: needs matplotlib: apt install python3-matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    report = read_report(arguments)
    rows = report["rows"]
    for note in report["notes"]:
        print(f"plot.py: {note}", file=sys.stderr)
    if not rows:
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

    plot_over_tasks(plt, rows, "average_accuracy", "mean accuracy over tasks so far, %",
                    saver("accuracy"))
    plot_over_tasks(plt, rows, "forgetting", "forgetting, points", saver("forgetting"))
    plot_cost(plt, rows, saver("cost"))
    plot_blocks(plt, rows, saver("blocks"))


if __name__ == "__main__":
    main()
