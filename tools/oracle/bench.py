"""Squint and llama.cpp in turn, each as a process of its own; medians of the rounds. Called by tools/bench.

    python tools/oracle/bench.py SQUINT FOLDER [--rounds 5] [--threads 2]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def run(*command):
    return json.loads(subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout)


def squint(program, model, threads):
    """Prefill of 512 tokens, and 128 tokens from an (almost) empty cache, as llama.cpp's own benchmark does."""
    common = ["--threads", threads, "--rounds", 1, "--json"]
    prefill = run(program, "bench", model, "-p", 512, "-n", 1, *common)
    decode = run(program, "bench", model, "-p", 1, "-n", 128, *common)
    return {
        "prefill": prefill["prefill_tokens_per_second"],
        "decode": decode["decode_tokens_per_second"],
        "memory": max(prefill["peak_memory"], decode["peak_memory"]),
    }


def llamacpp(model, threads):
    result = run(sys.executable, HERE / "llamacpp_bench.py", model, "--threads", threads, "--repeat", 1, "--json")
    return {
        "prefill": result["pp512_tokens_per_second"]["median"],
        "decode": result["tg128_tokens_per_second"]["median"],
        # Python's own share is not llama.cpp's.
        "memory": result["peak_resident_bytes"] - result["before_load_bytes"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("squint")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    print(f"SmolLM2-135M, {arguments.threads} threads, median (least to most) of {arguments.rounds} alternating rounds\n")
    print("| | Squint | llama.cpp | ratio |")
    print("| --- | --- | --- | --- |")
    for ours, theirs in (("int4", "q4_0"), ("int8", "q8_0")):
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append((
                squint(arguments.squint, arguments.folder / f"{ours}.squint", arguments.threads),
                llamacpp(arguments.folder / f"{theirs}.gguf", arguments.threads)))
        for key, name, unit in (
            ("prefill", "prefill 512", "tokens/s"), ("decode", "decode 128", "tokens/s"), ("memory", "peak memory", "MiB"),
        ):
            a, b = ([r[i][key] / (2**20 if key == "memory" else 1) for r in rounds] for i in (0, 1))
            ratio = statistics.median(x / y for x, y in zip(a, b))
            cells = [f"{statistics.median(v):.0f} ({min(v):.0f} to {max(v):.0f}) {unit}" for v in (a, b)]
            print(f"| {name}, {ours} / {theirs.upper()} | {cells[0]} | {cells[1]} | {ratio:.2f} |", flush=True)


main()
