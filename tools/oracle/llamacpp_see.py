"""llama.cpp looking at an image: how long, and how much memory, through mtmd. Called by bench.py.

    python tools/oracle/llamacpp_see.py MODEL.gguf MMPROJ.gguf PICTURE [--prompt TEXT] [-n 64] [--threads 2]
    python tools/oracle/llamacpp_see.py MODEL.gguf MMPROJ.gguf PICTURE --tiles [--threads 2]

The first does what `llama-mtmd-cli` does for one answer: it loads both files, decodes and splits the image, encodes tile
after tile, and generates -n tokens greedily, past any end. `seconds` is all of it, but for the start of Python and its
imports. The prompt is as the chat template leaves it, with <image> for the image. --tiles encodes only: `tile_seconds` is
the mean over the image's tiles, after one that is not measured. Everything that has a default is at llama.cpp's; memory is
the process's VmHWM less what it was before the load. Prints JSON.
"""

import argparse
import ctypes
import json
import time

import llama_cpp
import numpy
from llama_cpp import mtmd_cpp

import llamacpp

_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
mtmd_cpp.mtmd_log_set(_quiet, ctypes.c_void_p(0))
mtmd_cpp.mtmd_helper_log_set(_quiet, ctypes.c_void_p(0))

PROMPT = "<|im_start|>User:<image>What is in this picture?<end_of_utterance>\nAssistant:"
CONTEXT = 4096


def see(path, model, threads):
    settings = mtmd_cpp.mtmd_context_params_default()
    settings.use_gpu = False
    settings.print_timings = False
    settings.n_threads = threads
    context = mtmd_cpp.mtmd_init_from_file(str(path).encode(), model.model, settings)
    if not context:
        raise SystemExit(f"{path}: llama.cpp cannot load it")
    return context


def split(context, image, prompt):
    """The prompt in chunks of text and tiles."""
    bitmap = mtmd_cpp.mtmd_helper_bitmap_init_from_file(context, str(image).encode(), False)
    if not bitmap:
        raise SystemExit(f"{image}: llama.cpp cannot read it")
    data = prompt.replace("<image>", mtmd_cpp.mtmd_default_marker().decode()).encode()
    text = mtmd_cpp.mtmd_input_text(data, len(data), False, True)
    chunks = mtmd_cpp.mtmd_input_chunks_init()
    bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
    status = mtmd_cpp.mtmd_tokenize(context, chunks, ctypes.byref(text), bitmaps, 1)
    if status != 0:
        raise SystemExit(f"mtmd_tokenize: {status}")
    mtmd_cpp.mtmd_bitmap_free(bitmap)
    return chunks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("mmproj")
    parser.add_argument("image")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("-n", "--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiles", action="store_true", help="only encode")
    arguments = parser.parse_args()

    before = llamacpp.status("VmHWM")
    start = time.perf_counter()
    with llamacpp.Model(
            arguments.model, context=16 if arguments.tiles else CONTEXT, threads=arguments.threads, batch=2048) as model:
        context = see(arguments.mmproj, model, arguments.threads)
        chunks = split(context, arguments.image, arguments.prompt)
        loaded = time.perf_counter()
        parts = [mtmd_cpp.mtmd_input_chunks_get(chunks, index) for index in range(mtmd_cpp.mtmd_input_chunks_size(chunks))]
        tiles = [part for part in parts if mtmd_cpp.mtmd_input_chunk_get_type(part) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_IMAGE]
        result = {
            "tiles": len(tiles),
            "tile_tokens": sum(mtmd_cpp.mtmd_input_chunk_get_n_tokens(part) for part in tiles),
            "prompt_tokens": sum(mtmd_cpp.mtmd_input_chunk_get_n_tokens(part) for part in parts),
            "load_seconds": loaded - start,
        }
        if arguments.tiles:
            seconds = []
            for tile in [tiles[0], *tiles]:
                begin = time.perf_counter()
                if mtmd_cpp.mtmd_encode_chunk(context, tile) != 0:
                    raise SystemExit("mtmd_encode_chunk failed")
                seconds.append(time.perf_counter() - begin)
            result["tile_seconds"] = sum(seconds[1:]) / len(tiles)
        else:
            position = llama_cpp.llama_pos(0)
            status = mtmd_cpp.mtmd_helper_eval_chunks(
                context, model.context, chunks, 0, 0, 2048, True, ctypes.byref(position))
            if status != 0:
                raise SystemExit(f"mtmd_helper_eval_chunks: {status}")
            result["seconds_to_first_token"] = time.perf_counter() - start
            tokens = []
            for index in range(arguments.tokens):
                logits = numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.context, -1), (model.size,))
                tokens.append(int(logits.argmax()))
                if index + 1 < arguments.tokens:
                    model.feed([tokens[-1]])
            result["tokens"] = tokens
        mtmd_cpp.mtmd_free(context)
        result["peak_resident_bytes"] = llamacpp.status("VmHWM")
        result["before_load_bytes"] = before
    result["seconds"] = time.perf_counter() - start
    print(json.dumps(result))


if __name__ == "__main__":
    main()
