"""ggml's own quantizers, through the library that llama-cpp-python carries, as numpy functions."""

import ctypes
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

_library = None


def library():
    """libggml-base, found beside the llama_cpp package (or in a `lib` folder of the environment)."""
    global _library
    if _library is None:
        import importlib.util

        packages = pathlib.Path(importlib.util.find_spec("llama_cpp").origin).parent
        for folder in (packages / "lib", packages.parent / "lib"):
            found = sorted(folder.glob("libggml-base.so*")) + sorted(folder.glob("libggml-base*.dylib"))
            if found:
                _library = ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)
                break
        else:
            raise FileNotFoundError(f"no libggml-base beside {packages}; install llama-cpp-python")
        _library.ggml_quantize_chunk.restype = ctypes.c_size_t
        _library.ggml_quantize_chunk.argtypes = (
            [ctypes.c_int] + [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
        )
        # The tables of f16 values that some quantizers read are filled by the first context.
        class Parameters(ctypes.Structure):
            _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]

        _library.ggml_init.restype = ctypes.c_void_p
        _library.ggml_init.argtypes = [Parameters]
        _library.ggml_free.argtypes = [ctypes.c_void_p]
        _library.ggml_free(_library.ggml_init(Parameters(1 << 16, None, True)))
    return _library


def quantize(weights: np.ndarray, type: Type) -> np.ndarray:
    """Blocks `[rows, bytes]` of `weights[rows, columns]`."""
    weights = np.ascontiguousarray(weights, np.float32)
    rows, columns = weights.shape
    block, size = gguf.GGML_QUANT_SIZES[type]
    assert columns % block == 0
    blocks = np.zeros((rows, columns // block * size), np.uint8)
    written = library().ggml_quantize_chunk(
        int(type), weights.ctypes.data, blocks.ctypes.data, 0, rows, columns, None
    )
    assert written == blocks.size
    return blocks


def dequantize(blocks: np.ndarray, type: Type) -> np.ndarray:
    """Weights `[rows, columns]` of blocks `[rows, bytes]`."""
    return np.asarray(gguf.dequantize(blocks, type), np.float32).reshape(blocks.shape[0], -1)


def relative_rmse(weights: np.ndarray, approximation: np.ndarray) -> float:
    """√(Σ(w − ŵ)² / Σw²)."""
    difference = weights.astype(np.float64) - approximation.astype(np.float64)
    return float(np.sqrt((difference**2).sum() / (weights.astype(np.float64) ** 2).sum()))
