"""OpenVINO GenAI's speed and memory on a language model. Called by bench.py.

    python tools/oracle/openvino_bench.py MODEL [-p 2048] [-n 64] [--threads 2]

MODEL is a GGUF, which OpenVINO GenAI reads itself, or a folder from `optimum-cli export openvino --weight-format int4
--group-size 64 --ratio 1.0 --sym`. bench.py takes the GGUF: the same Q4_0 file as llama.cpp's, and optimum-intel wants an older
transformers than the other oracles. In what form OpenVINO keeps the GGUF's blocks is its own affair.
Prefill: the time to the first token behind -p tokens; decode: the mean of the
other -n. One short answer before is not measured. Number formats of activations and of the KV cache are OpenVINO's choice.
Prints JSON; memory is the process's VmHWM less what it was before the load.
"""

import argparse
import json

import numpy
import openvino
import openvino_genai

from encoder_bench import status

VOCABULARY = 49_152


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-p", "--prefill", type=int, default=2048)
    parser.add_argument("-n", "--decode", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    before = status("VmHWM")
    pipeline = openvino_genai.LLMPipeline(arguments.model, "CPU", INFERENCE_NUM_THREADS=arguments.threads)
    random = numpy.random.default_rng(1)

    def generate(prompt, answer):
        ids = random.integers(20, VOCABULARY, (1, prompt))
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
        options = openvino_genai.GenerationConfig(max_new_tokens=answer, ignore_eos=True, do_sample=False)
        metrics = pipeline.generate(inputs, options).perf_metrics
        assert metrics.get_num_generated_tokens() == answer
        return metrics

    generate(64, 4)
    metrics = generate(arguments.prefill, 1 + arguments.decode)
    print(json.dumps({
        "prefill_tokens_per_second": 1000 * arguments.prefill / metrics.get_ttft().mean,
        "decode_tokens_per_second": 1000 / metrics.get_tpot().mean,
        "peak_resident_bytes": status("VmHWM"), "before_load_bytes": before,
        "library": f"OpenVINO GenAI {openvino_genai.__version__.split('-')[0]}"}))


if __name__ == "__main__":
    main()
