#!/usr/bin/env python3
"""Times the training step of the published PyTorch code of L2P or DualPrompt, as `rep bench` times this program's.

usage: scripts/bench_published.py CHECKOUT... [--sizes tiny base] [--variants plain fused tuned] [--steps 5] [--warmup 2]
                                  [--batch 16] [--threads N] [--device cpu] [--rep JSON...] [--json]

CHECKOUT is a clone of github.com/JH-LEE-KR/l2p-pytorch or dualprompt-pytorch; it, PyTorch, torchvision and the timm of its
requirements.txt (0.6.7) are all that is needed. Steps are those of the checkout's own train_one_epoch with its own options for
CIFAR-100 on random images of 224 pixels and random weights: query, forward, loss, backward, clipping, Adam, and what it logs.
`plain` is the code as published; `fused` has its attention from PyTorch's scaled_dot_product_attention; `tuned`, bf16
autocast besides. Each row is a process of its own: seconds between steps, the unit (a plain forward pass, as in `rep
bench`), and the highest resident memory of the process. --rep adds the rows of files that `rep bench --json` wrote.
"""
import argparse
import ast
import contextlib
import importlib
import io
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time

VARIANTS = ("plain", "fused", "tuned")


def options_of(checkout):
    """The checkout's defaults for CIFAR-100, and the name of its method."""
    name = next(f[:-3] for f in sorted(os.listdir(os.path.join(checkout, "configs"))) if f.startswith("cifar100_"))
    parser = argparse.ArgumentParser()
    importlib.import_module(f"configs.{name}").get_args_parser(parser)
    args = parser.parse_args([])
    args.nb_classes, args.distributed = 100, False
    return args, name[len("cifar100_"):]


def keywords_of_model(checkout, args):
    """What main.py gives create_model for the model that it trains."""
    with open(os.path.join(checkout, "main.py")) as file:
        tree = ast.parse(file.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "model" and \
                getattr(getattr(node.value, "func", None), "id", "") == "create_model":
            return {word.arg: eval(compile(ast.Expression(word.value), "main.py", "eval"), {"args": args})
                    for word in node.value.keywords}
    sys.exit(f"error: {checkout}/main.py makes no model with create_model")


def import_torchvision():
    """timm imports it. One built for another PyTorch lacks its operators, of which no step uses one: they are declared."""
    import torch
    library = torch.library.Library("torchvision", "FRAGMENT")
    while True:
        try:
            importlib.import_module("torchvision")
            return library  # which lasts as long as it is held
        except RuntimeError as error:
            lacking = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if not lacking:
                raise
            library.define(lacking[1] + "(Tensor x) -> Tensor")
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]


def fuse_attention(models):
    """Puts scaled_dot_product_attention into every attention, with the prefixes of DualPrompt."""
    import torch
    from torch.nn import functional

    def forward(self, x, prompt=None):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)
        if prompt is not None:
            prefix = prompt.permute(1, 0, 3, 2, 4).to(k.dtype)
            k, v = torch.cat([prefix[0], k], dim=2), torch.cat([prefix[1], v], dim=2)
        x = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(B, N, C))

    for kind in {type(module) for model in models for module in model.modules() if hasattr(module, "qkv")}:
        kind.forward = forward


class Batches:
    """A fixed batch, `count` times; notes when each is asked for, which is when the step before it is over."""

    def __init__(self, images, labels, count, wait):
        self.batch, self.count, self.wait, self.times = (images, labels), count, wait, []

    def __len__(self):
        return self.count

    def __iter__(self):
        for _ in range(self.count):
            self.note()
            yield self.batch
        self.note()

    def note(self):
        self.wait()
        self.times.append(time.perf_counter())


def spread(seconds):
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def measure(o, size, variant):
    """One row, in this process."""
    checkout = os.path.abspath(o.checkouts[0])
    sys.path.insert(0, checkout)
    import torch
    torch.set_num_threads(o.threads)
    torch.manual_seed(42)
    held = import_torchvision()  # noqa: F841
    args, method = options_of(checkout)
    args.device, args.batch_size, args.model = o.device, o.batch, f"vit_{size}_patch16_224"
    args.lr *= args.batch_size / 256
    from timm.models import create_model
    from timm.optim import create_optimizer
    importlib.import_module("models")  # registers the checkout's own
    engine = importlib.import_module("engine")
    original = create_model(args.model, pretrained=False, num_classes=args.nb_classes).to(o.device)
    model = create_model(args.model, **dict(keywords_of_model(checkout, args), pretrained=False)).to(o.device)
    for parameter in original.parameters():
        parameter.requires_grad = False
    for name, parameter in model.named_parameters():
        if name.startswith(tuple(args.freeze)):
            parameter.requires_grad = False
    if variant != "plain":
        fuse_attention([original, model])

    images, labels = torch.rand(o.batch, 3, 224, 224), torch.arange(o.batch) % 10
    wait = torch.cuda.synchronize if o.device != "cpu" else lambda: None
    if o.device == "cpu":
        torch.cuda.synchronize = lambda: None  # which train_one_epoch calls wherever it runs
    batches = Batches(images, labels, o.warmup + o.steps, wait)
    precision = torch.autocast(torch.device(o.device).type, dtype=torch.bfloat16, enabled=variant == "tuned")
    with contextlib.redirect_stdout(io.StringIO()), precision:
        engine.train_one_epoch(model, original, torch.nn.CrossEntropyLoss().to(o.device), batches,
                               create_optimizer(args, model), torch.device(o.device), epoch=0, max_norm=args.clip_grad,
                               task_id=0, class_mask=[list(range(10))], args=args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = [b - a for a, b in zip(batches.times, batches.times[1:])][o.warmup:]
    row = {"config": f"{method}-pytorch, {variant}", "size": size, "device": {"kind": o.device, "threads": o.threads},
           "libtorch": torch.__version__, "steps": len(seconds), "step_seconds": spread(seconds), "peak_rss_bytes": peak}
    row["cuda_peak_bytes"] = torch.cuda.max_memory_allocated() if o.device != "cpu" else None
    if variant == "plain":  # the unit is of the code as published, whatever the steps are
        units, images = [], images.to(o.device)
        for _ in range(3):
            begin = time.perf_counter()
            with torch.no_grad():
                original(images)
            wait()
            units.append(time.perf_counter() - begin)
        row["unit_seconds"] = min(units)
        row["step_ratio"] = row["step_seconds"]["median"] / row["unit_seconds"]
    return row


def table(rows):
    print("| step, batch of 16 | ViT | s a step | least and most | plain forward passes | resident MiB |")
    print("|---|---|---:|---:|---:|---:|")
    for row in rows:
        s, ratio = row["step_seconds"], row.get("step_ratio")
        print(f"| {row['config']} | {row.get('size', '')} | {s['median']:.3f} | {s['min']:.3f} to {s['max']:.3f} |"
              f" {'' if ratio is None else format(ratio, '.2f')} | {row['peak_rss_bytes'] / 2**20:,.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", metavar="CHECKOUT")
    parser.add_argument("--sizes", nargs="+", default=["tiny", "base"])
    parser.add_argument("--variants", nargs="+", default=["plain", "tuned"], choices=VARIANTS)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rep", nargs="+", default=[], metavar="JSON")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, not as a table")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # SIZE-VARIANT: this process measures it
    o = parser.parse_args()
    if o.row:
        print(json.dumps(measure(o, *o.row.split("-"))))
        return
    rows = []
    for checkout in o.checkouts:
        if not os.path.isfile(os.path.join(checkout, "engine.py")):
            sys.exit(f"error: {checkout} has no engine.py; give a clone of l2p-pytorch or dualprompt-pytorch")
        for size in o.sizes:
            for variant in o.variants:
                done = subprocess.run(
                    [sys.executable, "-W", "ignore", __file__, checkout, "--row", f"{size}-{variant}",
                     *sum(([f"--{key}", str(getattr(o, key))] for key in ("steps", "warmup", "batch", "threads", "device")),
                          [])], stdout=subprocess.PIPE, text=True, check=False)
                if done.returncode != 0:
                    sys.exit(f"error: {checkout} on {size}, {variant}, ended with {done.returncode}")
                rows.append(json.loads(done.stdout.splitlines()[-1]))
    for path in o.rep:
        with open(path) as file:
            rows.append(json.load(file))
    if o.json:
        print(json.dumps(rows, indent=1))
    else:
        table(rows)


if __name__ == "__main__":
    main()
