#!/usr/bin/env python3
"""Writes report.md and report.json from what the steps of scripts/gpu_check.sh left.

usage: scripts/gpu_report.py STEPS OUTPUT
"""
import json
import os
import platform
import subprocess
import sys

import torch

PRECISIONS = ("fp32", "tf32", "bf16")


def read(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def machine():
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    git = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True)
    return {"gpu": gpu.name if gpu else None, "gpu_bytes": gpu.total_memory if gpu else None,
            "torch": torch.__version__, "cuda": torch.version.cuda, "cores": os.cpu_count(),
            "system": platform.platform(), "revision": git.stdout.strip() or "unknown"}


def steps(folder):
    rows = []
    with open(os.path.join(folder, "steps.tsv")) as file:
        for line in file:
            name, code, seconds, command = line.rstrip("\n").split("\t")
            outcome = {"0": "passed", "none": "not run: no time left", "124": "cut at its limit",
                       "137": "cut at its limit"}.get(code, "failed")
            rows.append({"name": name, "outcome": outcome, "code": None if code == "none" else int(code),
                         "seconds": int(seconds), "command": command})
    return rows


def bench_rows(folder, done):
    rows = []
    for step in done:
        if step["name"].startswith("bench-"):
            name, graphs = step["name"][len("bench-"):].split("-graphs-")
            method, size, precision = name.rsplit("-", 2)
            result = read(os.path.join(folder, step["name"] + ".out"))
            rows.append({"method": method, "size": size, "precision": precision, "graphs": graphs == "true",
                         "outcome": step["outcome"], "bench": result})
    return rows


def bench_table(rows):
    lines = ["| ViT | method | precision | graphs | s a step | plain forward, s | step / forward | GPU peak, MB |"
             " resident, MB | of the matmul rate |", "|---|---|---|---|---:|---:|---:|---:|---:|---:|"]
    order = {"tiny": 0, "base": 1, "large": 2}
    for row in sorted(rows, key=lambda row: (order[row["size"]], row["method"], PRECISIONS.index(row["precision"]),
                                             row["graphs"])):
        r = row["bench"]
        head = f"| {row['size']} | `{row['method']}` | {row['precision']} | {'yes' if row['graphs'] else 'no'} |"
        if r is None:
            lines.append(f"{head} {row['outcome']} | | | | | |")
            continue
        gpu = "" if r["cuda_peak_bytes"] is None else f"{r['cuda_peak_bytes'] / 1e6:,.0f}"
        lines.append(f"{head} {r['step_seconds']['median']:.4f} | {r['unit_seconds']:.4f} | {r['step_ratio']:.2f} |"
                     f" {gpu} | {r['peak_rss_bytes'] / 1e6:,.0f} | {100 * r['matmul_fraction']:.0f} % |")
    return lines


def run_lines(name, result):
    if result is None:
        return [f"{name}: no result."]
    cost, device = result["cost"]["total"], result["device"]
    metrics = ", ".join(f"{key} {value:.2f}" for key, value in result["metrics"].items()
                        if isinstance(value, (int, float)))
    return [f"{name}: {len(result['accuracy']['class_incremental'])} tasks, {metrics}; GPU peak"
            f" {cost.get('cuda_peak_bytes')} bytes; device {json.dumps(device)}."]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, output = sys.argv[1:]
    done = steps(folder)
    report = {"machine": machine(), "steps": done, "bench": bench_rows(folder, done),
              "quickstart": read(os.path.join(folder, "quickstart", "result.json")),
              "tiny_rep": read(os.path.join(folder, "tiny-rep", "result.json"))}
    with open(os.path.join(output, "report.json"), "w") as file:
        json.dump(report, file, indent=1)
    m = report["machine"]
    lines = ["# rep on a GPU", "",
             f"Revision {m['revision']}; {m['gpu'] or 'no GPU'}; PyTorch {m['torch']} (CUDA {m['cuda']}); {m['cores']} cores;"
             f" {m['system']}.", "", "## Steps", "", "| step | outcome | s |", "|---|---|---:|"]
    lines += [f"| {step['name']} | {step['outcome']} | {step['seconds']} |" for step in done]
    lines += ["", "## Training steps, batch 16", ""] + bench_table(report["bench"])
    lines += ["", "## Runs", ""] + run_lines("Quickstart", report["quickstart"])
    lines += [""] + run_lines("REP-L2P on CIFAR-100, ViT-Ti", report["tiny_rep"])
    with open(os.path.join(output, "report.md"), "w") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
