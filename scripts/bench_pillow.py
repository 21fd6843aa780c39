#!/usr/bin/env python3
"""The image pipeline of torchvision and Pillow, timed on one thread, beside `rep bench --data`.

usage: scripts/bench_pillow.py --cifar DIR --photos DIR [--rep build/release/rep] [--images 256]

Four rows, in ms of processor time an image, best of several passes: the training view
(RandomResizedCrop 0.05-1 bilinear, flip, tensor, normalise) and the test view (Resize 256 bicubic,
CenterCrop 224, tensor, normalise) of CIFAR-100's images (--cifar: the folder of train.bin and
test.bin) and of JPEG files of 500 x 375 made from the photographs below --photos, as mosaics where
those are smaller. With --rep, its figures for the same images and the ratio. Needs python3-pil and
python3-torchvision; without them there is nothing to compare and the exit code is 0.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

PASSES = 9
WIDTH, HEIGHT = 500, 375


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--cifar", required=True, help="folder of CIFAR-100's binary version")
    parser.add_argument("--photos", required=True, help="folder of JPEG files")
    parser.add_argument("--rep", help="the executable to compare with")
    parser.add_argument("--images", type=int, default=256, help="images a pass [256]")
    given = parser.parse_args()
    if given.images < 1:
        parser.error("--images must be at least 1")
    return given


def photographs(folder):
    found = [os.path.join(where, name) for where, _, names in sorted(os.walk(folder))
             for name in sorted(names) if name.lower().endswith((".jpg", ".jpeg"))]
    if not found:
        sys.exit(f"bench_pillow.py: {folder}: no JPEG files there")
    return found


def write_jpegs(pillow, photos, root, count):
    """An image folder of one class whose training and test images are the same files."""
    for split in ("train", "test"):
        os.makedirs(os.path.join(root, split, "photo"))
    last = 0
    for i in range(count):
        picture = pillow.new("RGB", (WIDTH, HEIGHT))
        y = 0
        while y < HEIGHT:
            x = row = 0
            while x < WIDTH:
                with pillow.open(photos[last % len(photos)]) as photo:
                    picture.paste(photo.convert("RGB"), (x, y))
                    x, row = x + photo.width, max(row, photo.height)
                last += 1
            y += row
        path = os.path.join(root, "train", "photo", f"{i:04}.jpg")
        picture.save(path, quality=90)
        os.link(path, os.path.join(root, "test", "photo", f"{i:04}.jpg"))
    return sorted(os.path.join(root, "train", "photo", name)
                  for name in os.listdir(os.path.join(root, "train", "photo")))


def cifar_images(pillow, path, count):
    """The images that `rep bench --data` takes: spread evenly over the file."""
    record = 3074
    with open(path, "rb") as file:
        size = os.path.getsize(path) // record
        if size == 0:
            sys.exit(f"bench_pillow.py: {path}: holds no images")
        images = []
        for i in range(min(count, size)):
            file.seek(i * size // min(count, size) * record + 2)
            planes = file.read(record - 2)
            bands = [pillow.frombytes("L", (32, 32), planes[c * 1024:(c + 1) * 1024])
                     for c in range(3)]
            images.append(pillow.merge("RGB", bands))
        return images


def milliseconds(work, items):
    best = float("inf")
    for _ in range(PASSES + 1):  # the first warms up
        start = time.thread_time()
        for item in items:
            work(item)
        best = min(best, time.thread_time() - start)
    return 1e3 * best / len(items)


def rep_rows(rep, name, dataset, folder):
    config = os.path.join(folder, name + ".yaml")
    with open(config, "w", encoding="utf-8") as file:
        json.dump({"name": name, "dataset": dataset, "stream": {"tasks": 1},
                   "backbone": {"name": "vit_tiny_patch16_224", "weights": "random",
                                "normalise": "imagenet"},
                   "method": {"name": "ncm"}, "train": {"augment": "l2p"}}, file)
    done = subprocess.run([rep, "bench", config, "--data", "--json"], stdout=subprocess.PIPE,
                          check=False)
    if done.returncode != 0:
        sys.exit(f"bench_pillow.py: {rep} failed, see above")
    result = json.loads(done.stdout)
    return result["train"]["ms_best"], result["test"]["ms_best"]


def main():
    given = arguments()
    try:
        import torch
        from PIL import Image, __version__ as pillow_version
        from torchvision import __version__ as torchvision_version
        from torchvision import transforms
    except (ImportError, RuntimeError) as error:
        print(f"Nothing to compare with: {error}; install python3-pil and python3-torchvision.")
        return
    torch.set_num_threads(1)
    finish = [transforms.ToTensor(),
              transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    train = transforms.Compose([transforms.RandomResizedCrop(224, scale=(0.05, 1.0)),
                                transforms.RandomHorizontalFlip(), *finish])
    bicubic = transforms.InterpolationMode.BICUBIC
    test = transforms.Compose([transforms.Resize(256, interpolation=bicubic),
                               transforms.CenterCrop(224), *finish])

    def decoded(path):
        with Image.open(path) as file:
            return file.convert("RGB")

    with tempfile.TemporaryDirectory() as folder:
        photos = os.path.join(folder, "photos")
        files = write_jpegs(Image, photographs(given.photos), photos, given.images)
        rows = []
        for split, view in (("train", train), ("test", test)):
            images = cifar_images(Image, os.path.join(given.cifar, split + ".bin"), given.images)
            rows.append(("CIFAR 32 x 32, " + split, milliseconds(view, images)))
        for split, view in (("train", train), ("test", test)):
            rows.append((f"JPEG {WIDTH} x {HEIGHT}, " + split,
                         milliseconds(lambda path, v=view: v(decoded(path)), files)))
        ours = [None] * len(rows)
        if given.rep:
            ours = [*rep_rows(given.rep, "cifar", {"name": "cifar100", "root": given.cifar},
                              folder),
                    *rep_rows(given.rep, "jpeg", {"name": "image_folder", "root": photos}, folder)]
    print(f"Pillow {pillow_version}, torchvision {torchvision_version}; ms of processor time an "
          "image, one thread")
    print(f"{'view':<24}{'Pillow':>10}" + (f"{'rep':>10}{'ratio':>10}" if given.rep else ""))
    for (name, pillow), rep in zip(rows, ours):
        print(f"{name:<24}{pillow:>10.3f}"
              + (f"{rep:>10.3f}{pillow / rep:>10.1f}" if rep else ""))


if __name__ == "__main__":
    main()
