"""llama.cpp's speed and memory on a GGUF: the baseline that `squint bench` is held against.

    python tools/oracle/llamacpp_bench.py MODEL.gguf [-p 512] [-n 128] [--behind] [--threads 2] [--repeat 3] [--json]

Prefill: -p tokens in one batch. Decode: -n tokens one at a time from an empty cache, as llama-bench's tg does, or with
--behind after the prompt, as its -d. Each is the best of --repeat, after one unmeasured pass; the median too. Batch sizes,
flash attention and the rest are llama.cpp's defaults. Peak memory is the process's VmHWM, less nothing: the
Python interpreter's share is printed beside it (`before_load`), and what is file-backed at the end (mapped weights).
"""

import argparse
import json
import pathlib
import random
import statistics
import time

import llamacpp


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-p", "--prefill", type=int, default=512)
    parser.add_argument("-n", "--decode", type=int, default=128)
    parser.add_argument("--behind", action="store_true", help="decode behind the prompt, not from an empty cache")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kv", choices=llamacpp.KV_TYPES, default="f16")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    before = llamacpp.status("VmHWM")
    context = arguments.prefill + arguments.decode + 8
    start = time.perf_counter()
    with llamacpp.Model(arguments.model, context=context, threads=arguments.threads, kv=arguments.kv,
                        batch=max(arguments.prefill, 1)) as model:
        load = time.perf_counter() - start
        randomness = random.Random(1)
        ids = [randomness.randrange(model.size) for _ in range(max(arguments.prefill, arguments.decode))]
        prefill, decode = [], []
        for turn in range(arguments.repeat + 1):
            model.clear()
            start = time.perf_counter()
            model.feed(ids[: arguments.prefill])
            middle = time.perf_counter()
            if not arguments.behind:
                model.clear()
            begin = time.perf_counter()
            for token in ids[: arguments.decode]:
                model.feed([token])
            end = time.perf_counter()
            if turn > 0:
                prefill.append(arguments.prefill / (middle - start))
                decode.append(arguments.decode / (end - begin))
        result = {
            "model": pathlib.Path(arguments.model).name,
            "file_bytes": pathlib.Path(arguments.model).stat().st_size,
            "threads": arguments.threads,
            "load_seconds": round(load, 3),
            f"pp{arguments.prefill}_tokens_per_second": {
                "best": round(max(prefill), 1), "median": round(statistics.median(prefill), 1)},
            f"tg{arguments.decode}_tokens_per_second": {
                "best": round(max(decode), 1), "median": round(statistics.median(decode), 1)},
            "peak_resident_bytes": llamacpp.status("VmHWM"),
            "before_load_bytes": before,
            "anonymous_bytes": llamacpp.status("RssAnon"),
            "file_backed_bytes": llamacpp.status("RssFile"),
            "library": llamacpp.version(),
        }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for key, value in result.items():
            print(f"{key:26} {value}")


if __name__ == "__main__":
    main()
