"""Re-quantizes a GGUF with llama.cpp's own llama_model_quantize.

    python tools/oracle/llamacpp_quantize.py OUT.gguf --type f32|f16|q8_0|q4_0|q4_1|q4_k [--source IN.gguf] [--mixed]

The source is SmolLM2-135M-Instruct's Q4_1 file unless told; its blocks are dequantized to float32 and quantized anew, so
`--type f32` gives the dequantized weights as they are. Every matrix gets the one type, the embedding included, unless
--mixed asks for llama.cpp's own choice per tensor. Where a row is not a whole number of blocks another type stands in
(Q8_0 for the embedding, llama.cpp's choice elsewhere): SmolLM2's rows of 576 are not a multiple of Q4_K's 256. The list
that is printed shows which types came out.
"""

import argparse
import collections

import gguf
import llama_cpp

import llamacpp  # noqa: F401  (silences the log)
import smollm2

TYPES = {
    "f32": (llama_cpp.LLAMA_FTYPE_ALL_F32, llama_cpp.GGML_TYPE_F32),
    "f16": (llama_cpp.LLAMA_FTYPE_MOSTLY_F16, llama_cpp.GGML_TYPE_F16),
    "q8_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, llama_cpp.GGML_TYPE_Q8_0),
    "q4_0": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, llama_cpp.GGML_TYPE_Q4_0),
    "q4_1": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1, llama_cpp.GGML_TYPE_Q4_1),
    "q4_k": (llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_S, llama_cpp.GGML_TYPE_Q4_K),
}


def quantize(source, output, kind, mixed=False, threads=2):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = threads
    parameters.ftype = TYPES[kind][0]
    parameters.allow_requantize = True
    if not mixed:
        # A type asked for by name has no fallback: where the width is not a whole number of blocks, Q8_0.
        embedding = next(t for t in gguf.GGUFReader(source).tensors if t.name == "token_embd.weight")
        block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(TYPES[kind][1])][0]
        parameters.pure = True
        parameters.token_embedding_type = TYPES[kind][1] if embedding.shape[0] % block == 0 else llama_cpp.GGML_TYPE_Q8_0
        parameters.output_tensor_type = parameters.token_embedding_type
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(output).encode(), parameters)
    if status != 0:
        raise SystemExit(f"{source}: llama_model_quantize: {status} (LLAMA_LOG=1 shows why)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--type", choices=TYPES, required=True)
    parser.add_argument("--source", default=None)
    parser.add_argument("--mixed", action="store_true")
    arguments = parser.parse_args()
    quantize(arguments.source or smollm2.gguf_path(), arguments.output, arguments.type, arguments.mixed)
    types = collections.Counter(tensor.tensor_type.name for tensor in gguf.GGUFReader(arguments.output).tensors)
    print(arguments.output, dict(types))


if __name__ == "__main__":
    main()
