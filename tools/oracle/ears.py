"""Whisper's encoder in Squint beside transformers, onnxruntime and whisper.cpp, on the same weights.

    python tools/oracle/ears.py compare WHISPER MODEL.squint SOUND…     # rows beside transformers'
    python tools/oracle/ears.py prepare WHISPER FOLDER                  # what race needs: ONNX, f32 and int8; ggml, f16 and f32
    python tools/oracle/ears.py projector WHISPER WIDTH OUT.safetensors # a random projector, with which `squint bench` has a model
    python tools/oracle/ears.py race FOLDER SOUND MODEL.squint… [--threads 2] [--rounds 5]

WHISPER is a checkpoint folder in transformers' format, of which the encoder is used; MODEL.squint is made of it
(`squint-convert --encoder audio=WHISPER`, and with `--projector`, `--decoder` for race). `compare` runs `squint embed --stage encoder`, and
prints for each sound the largest difference and the cosines of its rows.

`race` encodes one window of 30 seconds, as all of them do whatever the sound's length: Squint with its projector (`squint bench --audio`),
onnxruntime with the graph that PyTorch exports, its weights in int8 by quantize_dynamic as well, and whisper.cpp's `whisper_encode`, f16 and f32
(pywhispercpp; `pip install --no-binary pywhispercpp pywhispercpp` builds it for this machine), each in a process of its own, in turn, the medians of
all rounds. Mel features are made before. The ratios are to the first model. whisper.cpp needs a decoder to open a file: it gets one of one layer, of zeros.

Needs torch and transformers (compare, prepare), soundfile and soxr (compare), onnx, onnxruntime, pywhispercpp.
"""

import argparse
import json
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy

RATE = 16000
FRAMES = 3000
BIN = pathlib.Path(__file__).resolve().parents[2] / ".build" / "release" / "squint"


def encoder(folder):
    """transformers' WhisperEncoder in f32."""
    import torch
    import transformers
    from safetensors.torch import load_file

    values = json.loads((folder / "config.json").read_text())
    for key in ["model_type", "architectures", "dtype", "torch_dtype", "transformers_version"]:
        values.pop(key, None)
    config = transformers.WhisperConfig(**values)
    config._attn_implementation = "eager"
    model = transformers.models.whisper.modeling_whisper.WhisperEncoder(config)
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            name = name.removeprefix("model.")
            if name.startswith("encoder."):
                tensors[name.removeprefix("encoder.")] = tensor.float()
    model.load_state_dict(tensors)
    return model.eval().to(torch.float32)


# MARK: compare

def compare(arguments):
    import soundfile
    import soxr
    import torch
    import transformers

    model = encoder(arguments.whisper)
    extractor = transformers.WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    worst = 0
    for path in arguments.sounds:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        samples = samples.mean(axis=1)
        if rate != RATE:
            samples = soxr.resample(samples, rate, RATE, quality="HQ")
        inputs = extractor(samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        count = (int(inputs["attention_mask"].sum()) - 1) // 2 + 1
        with torch.inference_mode():
            expected = model(inputs["input_features"]).last_hidden_state[0, :count].numpy()
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder) / "rows.npy"
            subprocess.run([arguments.squint, "embed", arguments.model, "--audio", path, "--stage", "encoder", "-o", output],
                           check=True, stderr=subprocess.DEVNULL)
            rows = numpy.load(output).reshape(-1, expected.shape[1])
        assert rows.shape == expected.shape, (path, rows.shape, expected.shape)
        difference = float(abs(rows - expected).max())
        lengths = numpy.linalg.norm(rows, axis=1) * numpy.linalg.norm(expected, axis=1)
        cosines = (rows * expected).sum(axis=1) / lengths
        worst = max(worst, difference)
        print(f"{pathlib.Path(path).name:32} {count:5} rows  largest difference {difference:.2e}  cosine of a row "
              f"{cosines.min():.6f} at least, {cosines.mean():.6f} on average", flush=True)
    print(f"largest difference of all: {worst:.2e}")


# MARK: prepare

def write_onnx(model, folder):
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class Rows(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = model

        def forward(self, mels):
            return self.encoder(mels).last_hidden_state

    mels = torch.zeros(1, model.config.num_mel_bins, FRAMES)
    path = folder / "whisper-f32.onnx"
    torch.onnx.export(Rows(), (mels,), path, input_names=["mels"], output_names=["rows"], opset_version=17, dynamo=False)
    quantize_dynamic(path, folder / "whisper-int8.onnx", weight_type=QuantType.QInt8)


def write_ggml(model, path, is_half):
    """The encoder as whisper.cpp opens it (its models/convert-h5-to-ggml.py), with one layer of zeros as the decoder."""
    import transformers

    config = model.config
    width, layers, vocabulary, context = config.d_model, config.encoder_layers, 51864, 448
    names = {
        "self_attn.k_proj": "attn.key", "self_attn.q_proj": "attn.query", "self_attn.v_proj": "attn.value",
        "self_attn.out_proj": "attn.out", "self_attn_layer_norm": "attn_ln", "fc1": "mlp.0", "fc2": "mlp.2",
        "final_layer_norm": "mlp_ln",
    }
    tensors = {}
    for name, value in model.state_dict().items():
        if name.startswith("layers."):
            index, rest = name.removeprefix("layers.").split(".", 1)
            stem, kind = rest.rsplit(".", 1)
            name = f"blocks.{index}.{names[stem]}.{kind}"
        name = {"embed_positions.weight": "positional_embedding", "layer_norm.weight": "ln_post.weight",
                "layer_norm.bias": "ln_post.bias"}.get(name, name)
        value = value.numpy()
        tensors["encoder." + name] = value[:, None] if name in ("conv1.bias", "conv2.bias") else value
    zeros = {"decoder.positional_embedding": (context, width), "decoder.token_embedding.weight": (vocabulary, width),
             "decoder.ln.weight": (width,), "decoder.ln.bias": (width,)}
    for part in ["attn", "cross_attn"]:
        for stem in ["query", "key", "value", "out"]:
            zeros[f"decoder.blocks.0.{part}.{stem}.weight"] = (width, width)
            if stem != "key":
                zeros[f"decoder.blocks.0.{part}.{stem}.bias"] = (width,)
        zeros[f"decoder.blocks.0.{part}_ln.weight"] = zeros[f"decoder.blocks.0.{part}_ln.bias"] = (width,)
    zeros |= {"decoder.blocks.0.mlp_ln.weight": (width,), "decoder.blocks.0.mlp_ln.bias": (width,),
              "decoder.blocks.0.mlp.0.weight": (4 * width, width), "decoder.blocks.0.mlp.0.bias": (4 * width,),
              "decoder.blocks.0.mlp.2.weight": (width, 4 * width), "decoder.blocks.0.mlp.2.bias": (width,)}
    tensors |= {name: numpy.zeros(shape, numpy.float32) for name, shape in zeros.items()}

    filters = transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins).mel_filters.T.astype(numpy.float32)
    with open(path, "wb") as file:
        file.write(struct.pack("12i", 0x67676D6C, vocabulary, FRAMES // 2, width, config.encoder_attention_heads, layers, context,
                               width, config.encoder_attention_heads, 1, config.num_mel_bins, int(is_half)))
        file.write(struct.pack("2i", *filters.shape) + filters.tobytes())
        file.write(struct.pack("i", 50257))
        for index in range(50257):
            word = str(index).encode()
            file.write(struct.pack("i", len(word)) + word)
        for name, value in tensors.items():
            # Vectors, positions and the convolutions' biases are f32 in every file.
            half = is_half and value.ndim > 1 and value.shape[-1] > 1 and "positional" not in name
            file.write(struct.pack("3i", value.ndim, len(name), int(half)))
            file.write(struct.pack(f"{value.ndim}i", *reversed(value.shape)) + name.encode())
            file.write(value.astype(numpy.float16 if half else numpy.float32).tobytes())


def prepare(arguments):
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model = encoder(arguments.whisper)
    for name, is_half in [("f16", True), ("f32", False)]:
        write_ggml(model, arguments.folder / f"whisper-{name}.bin", is_half)
    write_onnx(model, arguments.folder)


def projector(arguments):
    from safetensors.numpy import save_file

    width = json.loads((arguments.whisper / "config.json").read_text())["d_model"]
    weight = numpy.random.default_rng(1).normal(0, (4 * width) ** -0.5, (arguments.width, 4 * width)).astype(numpy.float32)
    save_file({"0.weight": weight, "0.bias": numpy.zeros(arguments.width, numpy.float32)}, arguments.output, metadata={"stack": "4"})


# MARK: race

def run_onnx(path, threads, rounds):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    mels = numpy.random.default_rng(1).uniform(-1, 1.5, shape).astype(numpy.float32)
    return timed(lambda: session.run(None, {"mels": mels}), rounds)


def run_whisper(path, threads, rounds):
    import _pywhispercpp as whisper

    context = whisper.whisper_init_from_file_with_params(str(path), whisper.whisper_context_default_params())
    samples = numpy.random.default_rng(1).normal(0, 0.1, 30 * RATE).astype(numpy.float32)
    whisper.whisper_pcm_to_mel(context, samples, len(samples), threads)
    return timed(lambda: whisper.whisper_encode(context, 0, threads), rounds)


def timed(body, rounds):
    """The median of `rounds` passes behind one that is not measured, in milliseconds."""
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        body()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[1:])


def race(arguments):
    threads, rounds = arguments.threads, arguments.rounds
    runners = {}
    for model in arguments.models:
        command = [arguments.squint, "bench", model, "--audio", arguments.sound, "-p", "1", "-n", "1", "--rounds", "3", "--threads",
                   str(threads), "--json"]
        runners[f"squint {pathlib.Path(model).name}"] = (
            command, lambda text: json.loads(text)["sound"]["encode_ms"])
    for path in sorted(arguments.folder.glob("whisper-*")):
        command = [sys.executable, __file__, "one", str(path), "--threads", str(threads), "--rounds", "3"]
        program = "onnxruntime" if path.suffix == ".onnx" else "whisper.cpp"
        runners[f"{program} {path.stem.removeprefix('whisper-')}"] = (command, float)
    times = {name: [] for name in runners}
    for _ in range(rounds):
        for name, (command, read) in runners.items():
            result = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            # whisper.cpp writes its own lines.
            times[name].append(read(result if "bench" in command else result.strip().splitlines()[-1]))
    first = next(iter(times))
    print(f"| a window of 30 s, {threads} threads | ms | × the time of {first} |\n| --- | --- | --- |")
    for name, values in times.items():
        ratio = statistics.median(value / base for value, base in zip(values, times[first]))
        print(f"| {name} | {statistics.median(values):.1f} | {ratio:.2f} |")


def one(arguments):
    run = run_onnx if arguments.path.suffix == ".onnx" else run_whisper
    print(run(arguments.path, arguments.threads, arguments.rounds))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--squint", type=pathlib.Path, default=BIN)
    commands = parser.add_subparsers(required=True)

    def command(name, body, *names):
        one = commands.add_parser(name)
        one.set_defaults(body=body)
        for argument in names:
            one.add_argument(argument, type=pathlib.Path)
        return one

    part = command("compare", compare, "whisper", "model")
    part.add_argument("sounds", nargs="+")
    command("prepare", prepare, "whisper", "folder")
    part = command("projector", projector, "whisper")
    part.add_argument("width", type=int)
    part.add_argument("output", type=pathlib.Path)
    for part in [command("race", race, "folder", "sound"), command("one", one, "path")]:
        part.add_argument("--threads", type=int, default=2)
        part.add_argument("--rounds", type=int, default=5)
        if part.get_default("body") is race:
            part.add_argument("models", nargs="+")
    arguments = parser.parse_args()
    arguments.body(arguments)


if __name__ == "__main__":
    main()
