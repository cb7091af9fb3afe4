"""Squint and llama.cpp in control groups with a memory limit. Called by tools/budget; needs root.

    python tools/oracle/budget.py BIN SQUINT FOLDER [--rows text,least,image,llava7b,refused,random] [--rounds 3] [--runs 100]

BIN is the folder with squint-convert, SQUINT the program that is measured; models are made in FOLDER, once.

Every run is a process of its own in a control group whose limit is the budget, with the model's file dropped from the page
cache before: what a board does after it has been switched on. Squint is given the same number as --memory. `peak` is the control
group's own, page cache and kernel memory included; `held` is the process's VmHWM. The rows:

text      SmolLM2-135M: a short prompt and 64 tokens, int4 beside Q4_0, from no limit down to 48 MiB. `of disk` is the rate as a
          share of what the disk gives: its read rate (O_DIRECT, in the same run) by the bytes that are not kept
least     the smallest budget with which Squint answers at a context of 256
image   SmolVLM-256M's shapes: one image of 512 × 512 in 17 tiles, 64 tokens
llava7b   LLaVA 1.5 7B's text model in 1 GiB: a prompt of 600 tokens, 4 tokens; and how much of the file is read. Only where
          asked for: it needs .tools/bench/llava7b.squint, which tools/bench --rows llava7b makes
refused   budgets below the least: the exit code, how long it takes, and what of the file is in the page cache afterwards
random    --runs runs with random budgets, models and prompts, answers and conversations: none may be killed or pass its budget.
          Refused are those that do not fit, and prompts that are longer than the context that was asked for
"""

import argparse
import ctypes
import json
import mmap
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

import bench
from bench import HERE, MIB

PROMPT = "Once upon a time there was a"


class Group:
    """A control group with a memory limit, in version 1 or 2, below the one that this process is in."""

    def __init__(self, limit):
        lines = pathlib.Path("/proc/self/cgroup").read_text().split()
        own = dict((line.split(":", 2)[1], line.split(":", 2)[2]) for line in lines)
        if "memory" in own:
            parent, self.v2 = pathlib.Path("/sys/fs/cgroup/memory" + own["memory"]), False
        else:
            # Version 2 has no limit on groups that processes are in beside their children: the root's child it is.
            parent, self.v2 = pathlib.Path("/sys/fs/cgroup"), True
            (parent / "cgroup.subtree_control").write_text("+memory")
        self.path = parent / f"squint-budget-{os.getpid()}-{time.monotonic_ns()}"
        self.path.mkdir()
        if limit:
            (self.path / ("memory.max" if self.v2 else "memory.limit_in_bytes")).write_text(str(limit))
            if self.v2:
                (self.path / "memory.swap.max").write_text("0")

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self):
        return int((self.path / ("memory.peak" if self.v2 else "memory.max_usage_in_bytes")).read_text())

    def kills(self):
        text = (self.path / ("memory.events" if self.v2 else "memory.oom_control")).read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))

    def remove(self):
        for _ in range(100):
            try:
                return self.path.rmdir()
            except OSError:
                time.sleep(0.01)


def drop(path):
    """The file leaves the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_bytes(path):
    """How much of the file is in the page cache."""
    size = path.stat().st_size
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        page = mmap.PAGESIZE
        pages = (size + page - 1) // page
        states = (ctypes.c_ubyte * pages)()
        # mmap objects give no address unless they are writable; numpy's view does.
        import numpy
        address = numpy.frombuffer(mapped, dtype=numpy.uint8).ctypes.data
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), states) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(state & 1 for state in states) * page


def read_rate(path, seconds=1.0):
    """What the disk gives, in bytes a second: sequential reads past the page cache, 4 MiB at a time."""
    block = 4 * MIB
    buffer = mmap.mmap(-1, block)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        total, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            count = os.preadv(descriptor, [buffer], total % max(path.stat().st_size // block * block, block))
            total += count
        return total / (time.perf_counter() - start)
    finally:
        os.close(descriptor)


class Run:
    def __init__(self, limit, *command, files=(), timeout=600):
        for file in files:
            drop(file)
        group = Group(limit)
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=group.enter)
        try:
            self.output, self.error = process.communicate(timeout=timeout)
            self.status = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            self.output, self.error = process.communicate()
            self.status = "timeout"
        self.seconds = time.perf_counter() - start
        self.peak, self.kills = group.peak(), group.kills()
        group.remove()
        self.json = json.loads(self.output) if self.status == 0 and self.output.startswith("{") else {}

    @property
    def outcome(self):
        if self.kills:
            return "killed"
        return "" if self.status == 0 else f"exit {self.status}"


def mib(value):
    return f"{value / MIB:,.0f}"


class Budget:
    def __init__(self, programs, squint, folder, rounds):
        self.squint = squint
        self.folder = folder
        self.rounds = rounds
        self.bench = bench.Bench(programs, folder)
        self.driver = None

    def ask(self, model, limit, *arguments, prompt=PROMPT, tokens=64, timeout=600):
        path = self.folder / model
        budget = ["--memory", str(limit)] if limit else []
        return Run(limit, self.squint, "ask", path, prompt, "--raw", "--max-tokens", tokens, "--json", *budget,
                   *arguments, files=[path], timeout=timeout)

    def chat(self, model, limit, lines, *arguments):
        """A conversation of these lines; `held` of its statistics."""
        path = self.folder / model
        script = self.folder / "conversation.txt"
        script.write_text("".join(line + "\n" for line in lines))
        run = Run(limit, "sh", "-c", 'exec "$0" chat "$@" < ' + str(script), self.squint, path, "--memory", limit, "--stats",
                  "--temperature", 0, *arguments, files=[path])
        peaks = re.findall(r"peak memory ([\d.]+) MiB", run.error)
        run.json = {"memory": {"peak": max(float(peak) for peak in peaks) * MIB}} if peaks else {}
        return run

    def llamacpp(self, limit, tokens=64, timeout=120):
        if self.driver is None:
            import llama_cpp
            packages = pathlib.Path(llama_cpp.__file__).parent.parent
            self.driver = self.folder / "llamacpp_budget"
            bench.output_of(shutil.which("cc") or "clang", "-O2", f"-I{packages}/include", HERE / "llamacpp_budget.c", "-o", self.driver,
                            f"-L{packages}/lib", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{packages}/lib")
        path = self.folder / "q4_0.gguf"
        return Run(limit, self.driver, path, 2, tokens, PROMPT, files=[path], timeout=timeout)

    # MARK: Rows

    def text(self):
        self.bench.make_smollm2()
        print("| budget, MiB | Squint, tokens/s | of unlimited | read a token, MiB | of disk | held, MiB | peak, MiB | llama.cpp, "
              "tokens/s | times faster |\n" + "| --- " * 9 + "|", flush=True)
        unlimited, answer = None, None
        for limit in [None, 160, 128, 112, 96, 80, 64, 48, 32]:
            limit = limit and limit * MIB
            ours, theirs, rates = [], [], []
            for _ in range(self.rounds):
                rates.append(read_rate(self.folder / "int4.squint"))
                ours.append(self.ask("int4.squint", limit))
                # llama.cpp takes minutes where it thrashes: once is enough, and not below what ends it.
                if limit is None or limit >= 112 * MIB:
                    theirs.append(self.llamacpp(limit))
                elif limit >= 96 * MIB and not theirs:
                    theirs.append(self.llamacpp(limit, tokens=8))
            bad = next((run for run in ours if run.status != 0 or run.kills), None)
            if bad:
                print(f"| {limit and mib(limit)} | {bad.outcome}: {bad.error.strip()} |", flush=True)
                continue
            speed = statistics.median(run.json["timings"]["generated_tokens_per_second"] for run in ours)
            unlimited = unlimited or speed
            answer = answer or ours[0].json["tokens"]
            same = all(run.json["tokens"] == answer for run in ours)
            read = ours[0].json["memory"]["read_per_token"]
            share = speed / (statistics.median(rates) / read) if read else None
            other = statistics.median(run.json.get("decode", 0) for run in theirs) if theirs else 0
            others = f"{other:.1f}" if other else theirs[0].outcome if theirs else "not run"
            print(f"| {mib(limit) if limit else 'none'} | {speed:.1f}{'' if same else ', another answer'} | {speed / unlimited:.2f} | "
                  f"{read / MIB:.1f} | {f'{share:.2f}' if share else ''} | {mib(max(run.json['memory']['peak'] for run in ours))} | "
                  f"{mib(max(run.peak for run in ours))} | {others} | "
                  f"{f'{speed / other:.1f}' if other else ''} |", flush=True)
        print()

    def least(self):
        self.bench.make_smollm2()
        low, high = 8, 64  # MiB: fails, answers
        while high - low > 1:
            middle = (low + high) // 2
            run = self.ask("int4.squint", middle * MIB, "--context", 256, tokens=8)
            if run.status == 0 and not run.kills:
                high = middle
            else:
                low = middle
        run = self.ask("int4.squint", high * MIB, "--context", 256)
        print(f"The smallest budget for SmolLM2-135M int4 at a context of 256: {high} MiB "
              f"({run.json['timings']['generated_tokens_per_second']:.1f} tokens/s, held {mib(run.json['memory']['peak'])} MiB, "
              f"the group's peak {mib(run.peak)} MiB).\n", flush=True)

    def image(self):
        self.bench.make_shapes("smolvlm")
        print("| budget, MiB | SmolVLM, 17 tiles and 64 tokens, s | of unlimited speed | held, MiB | peak, MiB |\n"
              + "| --- " * 5 + "|", flush=True)
        unlimited, answer = None, None
        for limit in [None, 160, 128, 96, 80]:
            runs = [self.ask("smolvlm.squint", limit and limit * MIB, "--image", self.folder / "square.png",
                             prompt="What is in this picture?") for _ in range(self.rounds)]
            if any(run.status != 0 or run.kills for run in runs):
                print(f"| {limit} | {runs[0].outcome}: {runs[0].error.strip()} |", flush=True)
                continue
            seconds = statistics.median(run.seconds for run in runs)
            unlimited = unlimited or seconds
            answer = answer or runs[0].json["tokens"]
            same = all(run.json["tokens"] == answer for run in runs)
            print(f"| {limit or 'none'} | {seconds:.1f}{'' if same else ', another answer'} | {unlimited / seconds:.2f} | "
                  f"{mib(max(run.json['memory']['peak'] for run in runs))} | {mib(max(run.peak for run in runs))} |", flush=True)
        print()

    def llava7b(self):
        path = self.folder / "llava7b.squint"
        if not path.exists():
            self.bench.make_shapes("llava7b")
        prompt = " ".join(["word"] * 599)
        run = self.ask(path.name, 1024 * MIB, prompt=prompt, tokens=4, timeout=3600)
        if run.status != 0 or run.kills:
            print(f"LLaVA 7B in 1 GiB: {run.outcome}: {run.error.strip()}\n", flush=True)
            return
        memory, timings = run.json["memory"], run.json["timings"]
        # The prompt, then the tokens behind the first; what the readers have begun for one more pass is two parts.
        passes = (memory["read"] - 3 * memory["read_per_token"]) / memory["read_per_token"]
        print(f"LLaVA 7B ({path.stat().st_size / MIB / 1024:.2f} GiB) in 1 GiB: {timings['prompt_tokens']} tokens of prompt in "
              f"{timings['seconds_to_first_token']:.0f} s, which read each weight that does not stay {passes:.2f} times; "
              f"{timings['generated_tokens_per_second']:.2f} tokens/s; held {mib(memory['peak'])} MiB, the group's peak "
              f"{mib(run.peak)} MiB.\n", flush=True)

    def refused(self):
        self.bench.make_smollm2()
        self.bench.make_shapes("smolvlm")
        print("| model | budget, MiB | exit | ms | of the weights read, KiB | says |\n" + "| --- " * 6 + "|", flush=True)
        for model, limit, arguments in [
            ("int4.squint", 16, []), ("int4.squint", 24, ["--context", "4096"]), ("smolvlm.squint", 24, []),
            ("smolvlm.squint", 48, ["--image", self.folder / "square.png"]),
        ]:
            path = self.folder / model
            drop(path)
            # Below its least a process may not even start; so the limit is the program's own alone.
            start = time.perf_counter()
            result = subprocess.run([self.squint, "ask", path, "Hi", "--memory", f"{limit}M", *arguments],
                                    capture_output=True, text=True)
            seconds = time.perf_counter() - start
            front = json.loads(bench.output_of(self.squint, "inspect", path, "--json"))["modules"][0]["offset"]
            read = max(cached_bytes(path) - front, 0)
            print(f"| {model} | {limit} | {result.returncode} | {1000 * seconds:.0f} | {read / 1024:.0f} | "
                  f"{result.stderr.strip().replace(str(self.folder), '…')} |", flush=True)
        print()

    def random(self, runs):
        self.bench.make_smollm2()
        self.bench.make_shapes("smolvlm")
        numbers = random.Random(1)
        counts = {"answered": 0, "refused": 0, "killed": 0, "over": 0, "other": 0}
        worst = 0
        for number in range(runs):
            model = numbers.choice(["int4.squint", "int8.squint", "q4_1.squint", "smolvlm.squint"])
            limit = numbers.randrange(24 * MIB, 220 * MIB)
            arguments = ["--threads", numbers.choice([1, 2]), "--kv", numbers.choice(["int8", "int8", "f16"])]
            if numbers.random() < 0.3:
                arguments += ["--context", numbers.choice([256, 700, 2000])]
            if numbers.random() < 0.3:
                arguments += ["--fit"]
            if model == "smolvlm.squint" and numbers.random() < 0.5:
                arguments += ["--image", self.folder / numbers.choice(["square.png", "strip.png"])]
            words = ["the", "quick", "brown", "fox", "jumps", "over", "it"]
            prompt = " ".join(numbers.choices(words, k=numbers.randrange(1, 200)))
            tokens = numbers.randrange(1, 40)
            if numbers.random() < 0.25:
                lines = [prompt, "And then?"]
                if model == "smolvlm.squint":
                    arguments = [part for part in arguments if part != "--image" and not isinstance(part, pathlib.Path)]
                    lines = [f"/image {self.folder / 'strip.png'}", *lines, f"/image {self.folder / 'strip.png'}", "And this?"]
                run = self.chat(model, limit, lines, *arguments, "--max-tokens", tokens)
            else:
                run = self.ask(model, limit, *arguments, prompt=prompt, tokens=tokens)
            held = run.json.get("memory", {}).get("peak", 0)
            worst = max(worst, held / limit)
            kind = ("killed" if run.kills or run.status in (-9, "timeout") else "over" if held > limit else
                    "answered" if run.status == 0 else "refused" if run.status in (64, 69) else "other")
            counts[kind] += 1
            if kind in ("killed", "over", "other"):
                print(f"{kind}: {model} in {limit} bytes, {arguments}: {run.outcome} {run.error.strip()} held {held}", flush=True)
            print(f"random: {number + 1} of {runs}", file=sys.stderr, end="\r", flush=True)
        print(f"{runs} random runs: " + ", ".join(f"{count} {kind}" for kind, count in counts.items())
              + f"; at most {worst:.3f} of the budget held.\n", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=pathlib.Path, metavar="BIN")
    parser.add_argument("squint", type=pathlib.Path, metavar="SQUINT")
    parser.add_argument("folder", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--rows", default="text,least,image,refused,random", help="names of rows, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.exit(77, "making a control group needs root\n")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    budget = Budget(
        arguments.programs.resolve(), arguments.squint.resolve(), arguments.folder.resolve(), arguments.rounds)
    every = {"text": budget.text, "least": budget.least, "picture": budget.image, "llava7b": budget.llava7b,
             "refused": budget.refused, "random": lambda: budget.random(arguments.runs)}
    for name in arguments.rows.split(","):
        if name not in every:
            parser.error(f"there is no row {name}; there are {', '.join(every)}")
    for name in arguments.rows.split(","):
        every[name]()


if __name__ == "__main__":
    main()
