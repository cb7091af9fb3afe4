"""The little of llama.cpp's C interface that the oracles need, through llama-cpp-python's ctypes bindings."""

import ctypes
import os
import pathlib

import llama_cpp
import numpy

# Silence: llama.cpp logs every tensor. The callback is kept alive by this name.
_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
if not os.environ.get("LLAMA_LOG"):
    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))

KV_TYPES = {"f32": llama_cpp.GGML_TYPE_F32, "f16": llama_cpp.GGML_TYPE_F16, "q8_0": llama_cpp.GGML_TYPE_Q8_0}


class Model:
    """A GGUF and one context over it. Threads: 2 unless told. Everything else is llama.cpp's default."""

    def __init__(self, path, context=2048, threads=2, kv="f16", batch=512, repack=True, flash=None):
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.use_extra_bufts = repack
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp cannot load it (LLAMA_LOG=1 shows why)")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = context
        settings.n_batch = batch
        # llama.cpp's default: what is computed at once.
        settings.n_ubatch = min(batch, 512)
        settings.n_threads = threads
        settings.n_threads_batch = threads
        settings.type_k = settings.type_v = KV_TYPES[kv]
        if flash is not None:
            settings.flash_attn_type = int(flash)
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit(f"{path}: llama.cpp makes no context (LLAMA_LOG=1 shows why)")
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        self.position = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def tokenize(self, text, special=True, parse_special=True):
        data = text.encode()
        capacity = len(data) + 8
        ids = (llama_cpp.llama_token * capacity)()
        count = llama_cpp.llama_tokenize(self.vocabulary, data, len(data), ids, capacity, special, parse_special)
        assert count >= 0
        return list(ids[:count])

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.position = 0

    def feed(self, ids):
        """Appends `ids`, computes the logits of the last, and gives nothing back: for measuring."""
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        status = llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(tokens, len(ids)))
        llama_cpp.llama_synchronize(self.context)
        if status != 0:
            raise RuntimeError(f"llama_decode: {status}")
        self.position += len(ids)

    def decode(self, ids, every=False):
        """Appends `ids`; returns f32 logits [positions, vocabulary] of all of them, or [1, vocabulary] of the last."""
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for index, token in enumerate(ids):
            batch.token[index] = token
            batch.pos[index] = self.position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = every or index == len(ids) - 1
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode: {status}")
        self.position += len(ids)
        rows = range(len(ids)) if every else [len(ids) - 1]
        return numpy.stack([
            numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, row), (self.size,)) for row in rows
        ])


def status(key):
    """A line of /proc/self/status in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def version():
    """The bindings' version and the instruction sets that ggml was built for."""
    information = llama_cpp.llama_print_system_info().decode()
    sets = [part.split("=")[0].split(":")[-1].strip() for part in information.split("|") if part.strip().endswith("= 1")]
    return f"llama-cpp-python {llama_cpp.__version__} ({' '.join(sets)})"
