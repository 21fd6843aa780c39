#!/usr/bin/env python3
"""Keeps finished results of a table and writes results/RESULTS.md from all that are kept.

usage: scripts/results_page.py [--keep TABLE FOLDER] [--replace] [--results DIR]

  --keep TABLE FOLDER   first copy every finished result below FOLDER to results/TABLE/ROW/result.json,
                        the row being the name in the configuration, without folders of this machine
  --replace             also where a result of another configuration, data or weights is kept as that row
  --results DIR         instead of results/

RESULTS.md has a section for each results/TABLE/about.md, which says what was run and what it shows, with
{table} where the table goes; pictures of a table, where scripts/plot.py made them, are linked. Anyone can
make the page again from the kept files alone. Needs nothing but Python.
"""
import argparse
import json
import math
import os
import sys

RESULTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "results")
PATHS = {"root", "train_list", "test_list", "val_list", "weights", "path", "offline_result", "decoded_cache", "query_cache"}
NO_IDENTITY = {"name", "device", "threads", "memory_limit", "train.workers", "train.checkpoint_seconds",
               "eval.offline_result", "backbone.weights", "efficiency.query_backbone.weights", "dataset.root",
               "dataset.decoded_cache"}
OFF = [0, "", False, None, "none", "auto", [], "seen"]  # what an option is that changes nothing
HEAD = """# Results

Every accuracy that this program has measured, made from the files in `results/TABLE/` by
`scripts/results_page.py`. Accuracies are percent of all test images after the last task, ± the standard error of
that many images; over several seeds ± their standard deviation, with n seeds. Forgetting is the mean fall from each
task's best accuracy, in points. MACs, bytes and seconds are of the whole run; [docs/results.md](../docs/results.md) defines them.
"""
COLUMNS = ["method", "average accuracy", "average incremental", "forgetting", "task-incremental",
           "training TMAC", "testing TMAC", "peak of tensors, MB", "resident, MB", "carried, kB",
           "training, h", "in all, h", "J", "arithmetic", "machine", "revision"]


def finished(folder):
    """(path, result) of every finished result below `folder`."""
    for at, _, files in sorted(os.walk(folder)):
        if "result.json" in files:
            path = os.path.join(at, "result.json")
            with open(path, encoding="utf-8") as file:
                result = json.load(file)
            if result.get("complete"):
                yield path, result


def without_folders(value, key=""):
    """The same JSON, files by their names alone: where they lay says nothing to others."""
    if isinstance(value, dict):
        return {k: without_folders(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [without_folders(v) for v in value]
    if key in PATHS and isinstance(value, str):
        return os.path.basename(value.rstrip("/"))
    return value


def identity_of(result):
    """What makes it the run it is, but for the seed: dotted key -> value."""
    if "identity" not in result:  # of a build from before results said it
        return {"result of": result["rep"]["revision"], **flat(result["config"], {"seed"} | NO_IDENTITY)}
    return flat(result["identity"], {"seed"})


def flat(value, without=(), prefix=""):
    if not isinstance(value, dict):
        return {prefix[:-1]: value}
    return {k: v for key, inner in value.items() if prefix + key not in without
            for k, v in flat(inner, without, prefix + key + ".").items()}


def difference(a, b):
    """The first key in which two identities differ, "" for none. One that only one of them has, as of two builds,
    counts as equal where it is off."""
    for key in sorted(set(a) | set(b)):
        both = key in a and key in b
        if a[key] != b[key] if both else a.get(key, b.get(key)) not in OFF:
            return key
    return ""


def rows_to_keep(folder):
    """{row: (path, result)}, each row once."""
    rows = {}
    for path, result in finished(folder):
        seed = result["config"]["seed"]
        row = result["name"] + ("" if seed == 42 else f"-seed{seed}")
        if row in rows:
            key = difference(identity_of(rows[row][1]), identity_of(result))
            if key:
                sys.exit(f"results_page.py: {rows[row][0]} and {path} are both called {row} and differ in {key}; "
                         "remove the one that is not meant, or give its configuration another name")
        rows[row] = (path, result)
    return rows


def keep(table, folder, replace):
    rows = rows_to_keep(folder)
    for row, (path, result) in rows.items():
        old = os.path.join(RESULTS, table, row, "result.json")
        if replace or not os.path.exists(old):
            continue
        with open(old, encoding="utf-8") as file:
            key = difference(identity_of(json.load(file)), identity_of(without_folders(result)))
        if key:
            sys.exit(f"results_page.py: {path} is of another run than {old}: {key} differs; give its configuration "
                     "another name, or --replace the kept one")
    for row, (_, result) in rows.items():
        target = os.path.join(RESULTS, table, row)
        os.makedirs(target, exist_ok=True)
        with open(os.path.join(target, "result.json"), "w", encoding="utf-8") as file:
            json.dump(without_folders(result), file, indent=1, sort_keys=True)
            file.write("\n")
        print(f"kept {table}/{row}: {result['metrics']['average_accuracy']:.2f} %")


def mean(values):
    return sum(values) / len(values)


def plus_minus(results):
    """Mean accuracy with its error: over test images for one run, over seeds for several."""
    values = [r["metrics"]["average_accuracy"] for r in results]
    if len(values) > 1:
        m = mean(values)
        deviation = math.sqrt(sum((v - m) ** 2 for v in values) / (len(values) - 1))
        return f"{m:.2f} ± {deviation:.2f} (n = {len(values)})"
    p, images = values[0] / 100, sum(task["test_images"] for task in results[0]["tasks"])
    return f"{values[0]:.2f} ± {100 * math.sqrt(p * (1 - p) / images):.2f}"


def figure(results, of, form):
    values = [of(r) for r in results]
    return "-" if any(v is None for v in values) else form.format(mean(values))


LACKS = "†"  # behind hours and peaks that lack queries which other runs had computed (inputs.queries_from_files)


def mark(results, splits):
    """LACKS where queries of these splits were not computed in the run."""
    return LACKS if any(r["inputs"].get("queries_from_files", {}).get(s) for r in results for s in splits) else ""


def hours(results, phases, splits):
    """Mean hours of these phases."""
    seconds = [sum(r["cost"]["total"]["seconds"][phase] for phase in phases) for r in results]
    return f"{mean(seconds) / 3600:.2f}" + mark(results, splits)


def cells(name, results):
    def metric(key):
        return lambda r: r["metrics"].get(key)

    def cost(*keys):
        def of(r):
            value = r["cost"]
            for key in keys:
                value = None if value is None else value.get(key)
            return value
        return of

    def scaled(of, factor):
        return lambda r: None if of(r) is None else of(r) * factor

    first = results[0]
    device = f"{first['device']['name']}, {first['device']['threads']} thread(s)"
    return [
        f"`{name}`", plus_minus(results),
        figure(results, metric("average_incremental_accuracy"), "{:.2f}"),
        figure(results, metric("forgetting"), "{:.2f}"),
        figure(results, lambda r: r["metrics"]["task_incremental"]["average_accuracy"], "{:.2f}"),
        figure(results, lambda r: sum(r["cost"]["total"]["macs"]["train"].values()) / 1e12, "{:.1f}"),
        figure(results, lambda r: r["cost"]["total"]["macs"]["eval"] / 1e12, "{:.1f}"),
        figure(results, scaled(cost("total", "peak_tensor_bytes"), 1e-6), "{:.0f}") + mark(results, ["train"]),
        figure(results, scaled(cost("total", "peak_rss_bytes"), 1e-6), "{:.0f}") + mark(results, ["train"]),
        figure(results, scaled(cost("state_bytes"), 1e-3), "{:,.0f}"),
        hours(results, ["train"], ["train"]), hours(results, ["train", "eval"], ["train", "test"]),
        figure(results, cost("total", "energy_joules"), "{:.0f}"),
        first["config"]["precision"], device,
        ", ".join(sorted({r["rep"]["revision"] for r in results}))]


def table_of(table):
    by_name = {}  # name -> lists of results, each of one identity
    for _, result in finished(os.path.join(RESULTS, table)):
        groups = by_name.setdefault(result["name"], [])
        same = [g for g in groups if not difference(identity_of(g[0]), identity_of(result))]
        if same:
            same[0].append(result)
        else:
            groups.append([result])
    rows = [cells(name + (f" ({number})" if len(groups) > 1 else ""), results)
            for name, groups in by_name.items() for number, results in enumerate(groups, 1)]
    rows.sort(key=lambda row: -float(row[1].split()[0]))
    lines = ["| " + " | ".join(COLUMNS) + " |",
             "|---|---:|" + "---:|" * (len(COLUMNS) - 5) + "---|---|---|"]
    text = "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
    if LACKS in text:
        text += (f"\n\n{LACKS} Features of the frozen ViT that an earlier row had computed (efficiency.query_cache) "
                 "are in the MACs, but not in the hours and the peaks.")
    return text if rows else None


def page():
    sections = [HEAD]
    for table in sorted(os.listdir(RESULTS)):
        about = os.path.join(RESULTS, table, "about.md")
        if not os.path.isfile(about):
            continue
        rows = table_of(table)
        with open(about, encoding="utf-8") as file:
            text = file.read().strip()
        text = text.replace("{table}", rows or "No row of this table is finished yet.")
        figures = [name for name in ("accuracy", "cost", "blocks")
                   if os.path.exists(os.path.join(RESULTS, "figures", f"{table}-{name}.svg"))]
        sections.append("\n\n".join([text] + [f"![{table}: {name}](figures/{table}-{name}.svg)"
                                              for name in figures]) + "\n")
    return "\n".join(sections)


def main():
    global RESULTS
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--keep", nargs=2, metavar=("TABLE", "FOLDER"))
    parser.add_argument("--replace", action="store_true")
    parser.add_argument("--results", default=RESULTS, metavar="DIR")
    arguments = parser.parse_args()
    RESULTS = arguments.results
    if arguments.keep:
        if not os.path.isdir(arguments.keep[1]):
            sys.exit(f"results_page.py: {arguments.keep[1]}: no such folder")
        keep(*arguments.keep, arguments.replace)
    target = os.path.join(RESULTS, "RESULTS.md")
    with open(target, "w", encoding="utf-8") as file:
        file.write(page())
    print(f"wrote {os.path.relpath(target)}")


if __name__ == "__main__":
    main()
