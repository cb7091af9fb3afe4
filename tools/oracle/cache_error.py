"""How far the kinds of KV cache are from one in f32, on three kinds of text.

    python tools/oracle/cache_error.py SQUINT MODEL.squint [--kv int8 f16] [--tokens 1024] [--texts FILE…]

SQUINT is the program; MODEL.squint should have f32 weights (`squint-convert SOURCE --type f32`), so that nothing but the
cache rounds. The texts are, unless told otherwise, code (Sources/Squint/Session.swift), a manual (what `man bash` prints,
behind its first 20,000 characters) and prose (README.md), of each the first `--tokens` tokens. Prints the mean
Kullback-Leibler divergence KL(f32 ‖ kind) of the next token in nats, the largest, and how often the best token is the same.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy

import compare_logits

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANUAL_START = 20_000
CHARACTERS_PER_TOKEN = 8  # more than any of these texts has
ROWS_AT_A_TIME = 64


def texts(paths):
    """[(name, text)]"""
    if paths:
        return [(pathlib.Path(path).name, pathlib.Path(path).read_text()) for path in paths]
    manual = subprocess.run("man -P cat bash | col -b", shell=True, check=True, capture_output=True, text=True).stdout
    return [
        ("code", (ROOT / "Sources/Squint/Session.swift").read_text()),
        ("manual", manual[MANUAL_START:]),
        ("prose", (ROOT / "README.md").read_text()),
    ]


def tokens(squint, model, text, count):
    text = text[: CHARACTERS_PER_TOKEN * count]
    printed = subprocess.run([squint, "tokenize", model, text, "--json"], check=True, capture_output=True, text=True).stdout
    ids = json.loads(printed)
    ids = ids["ids"] if isinstance(ids, dict) else ids
    if len(ids) < count:
        raise SystemExit(f"a text has {len(ids)} tokens only, of {count}")
    return ids[:count]


def logits(squint, model, ids, kind, path):
    subprocess.run([squint, "logits", model, "--ids", *map(str, ids), "--kv", kind, "-o", path], check=True)
    return numpy.load(path, mmap_mode="r")


def distance(a, b):
    """compare_logits.compare, some rows at a time: logits of a thousand positions are large."""
    parts = [
        compare_logits.compare(a[start : start + ROWS_AT_A_TIME], b[start : start + ROWS_AT_A_TIME])
        for start in range(0, len(a), ROWS_AT_A_TIME)
    ]
    weights = numpy.array([part["positions"] for part in parts]) / len(a)
    return (
        float(weights @ [part["kl_mean"] for part in parts]),
        max(part["kl_largest"] for part in parts),
        float(weights @ [part["top1_agreement"] for part in parts]),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("squint")
    parser.add_argument("model")
    parser.add_argument("--kv", nargs="+", default=["int8"])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--texts", nargs="+")
    arguments = parser.parse_args()
    means = {kind: [] for kind in arguments.kv}
    print("kind   text      KL mean   largest   top-1")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts(arguments.texts):
            ids = tokens(arguments.squint, arguments.model, text, arguments.tokens)
            exact = logits(arguments.squint, arguments.model, ids, "f32", f"{folder}/exact.npy")
            for kind in arguments.kv:
                rounded = logits(arguments.squint, arguments.model, ids, kind, f"{folder}/rounded.npy")
                mean, largest, agreement = distance(exact, rounded)
                means[kind].append(mean)
                print(f"{kind:6} {name:8} {mean:8.5f} {largest:9.4f} {agreement:7.3f}", flush=True)
    for kind, values in means.items():
        print(f"{kind:6} {'mean':8} {sum(values) / len(values):8.5f}")


if __name__ == "__main__":
    main()
