"""formats/vision.md and formats/decoder.md as a program: from pixels to features and logits, out of a .squint file alone.

    python tools/oracle/vision_reference.py MODEL.squint Tests/Fixtures/vision/llava-clip/two …

prints how far the projector's features and the logits are from each case's features.npy and logits.npy, and fails beyond
2e-4 (for a file converted with --type f32). It is slow and plain on purpose: it shows that the file and the formats' pages
say all that a reader needs. Needs torch, and tools/requirements.txt for the reader of the file.
"""

import json
import pathlib
import sys

import numpy
import torch
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from squint_reader import SquintFile  # noqa: E402

TOLERANCE = 2e-4

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
}


class Module:
    """A module's keys and tensors by their names within it."""

    def __init__(self, model, name):
        self.model = model
        self.name = name

    def key(self, name, default=None):
        return self.model.metadata.get(f"{self.name}.{name}", default)

    def has(self, name):
        return f"{self.name}.{name}" in self.model.tensors

    def tensor(self, name):
        return torch.from_numpy(numpy.array(self.model.dequantize(f"{self.name}.{name}")))

    def linear(self, name, x):
        bias = self.tensor(f"{name}.bias") if self.has(f"{name}.bias") else None
        return F.linear(x, self.tensor(name), bias)

    def layer_norm(self, name, x):
        return F.layer_norm(
            x, x.shape[-1:], self.tensor(name), self.tensor(f"{name}.bias"), self.key("norm_epsilon"))

    def rms_norm(self, name, x):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.key("norm_epsilon")) * self.tensor(name)


def positions(encoder, rows, columns):
    table, grid = encoder.tensor("positions"), encoder.key("grid")
    first = len(table) - grid * grid
    if (rows, columns) == (grid, grid):
        return table
    rule = encoder.key("positions")
    assert rule != "fixed", "the tile has another grid than the positions"
    if rule == "buckets":
        index = [r * grid // rows * grid + c * grid // columns for r in range(rows) for c in range(columns)]
        return torch.cat([table[:first], table[first:][index]])
    image = table[first:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(image, size=(rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([table[:first], resized.permute(0, 2, 3, 1).reshape(rows * columns, -1)])


def encode(encoder, tile):
    """[3, height, width] to [(1 +) patches, feature_layers · width]."""
    side, width, heads = encoder.key("patch"), encoder.key("width"), encoder.key("heads")
    rows, columns = tile.shape[1] // side, tile.shape[2] // side
    patches = tile[:, :rows * side, :columns * side].reshape(3, rows, side, columns, side)
    x = encoder.linear("patch", patches.permute(1, 3, 0, 2, 4).reshape(rows * columns, -1))
    if encoder.has("class"):
        x = torch.cat([encoder.tensor("class")[None], x])
    x = x + positions(encoder, rows, columns)
    if encoder.has("pre_norm"):
        x = encoder.layer_norm("pre_norm", x)
    wanted = encoder.key("feature_layers")
    taken = [x] if wanted and 0 in wanted else []
    for i in range(encoder.key("layers")):
        h = encoder.layer_norm(f"{i}.attention.norm", x)
        q, k, v = (encoder.linear(f"{i}.attention.{part}", h).reshape(len(x), heads, -1).transpose(0, 1)
                   for part in "qkv")
        a = torch.softmax(q @ k.transpose(1, 2) / (width // heads) ** 0.5, dim=-1) @ v
        x = x + encoder.linear(f"{i}.attention.o", a.transpose(0, 1).reshape(len(x), -1))
        h = encoder.layer_norm(f"{i}.ffn.norm", x)
        x = x + encoder.linear(
            f"{i}.ffn.down", ACTIVATIONS[encoder.key("activation")](encoder.linear(f"{i}.ffn.up", h)))
        if wanted and i + 1 in wanted:
            taken.append(x)
    taken = taken if wanted else [x]
    if encoder.has("norm"):
        taken = [encoder.layer_norm("norm", x) for x in taken]
    features = torch.cat(taken, dim=-1)
    return features[1:] if encoder.key("drops_class", False) else features


def project(projector, features, rows, columns):
    s = projector.key("shuffle", 1)
    z = features
    if s > 1:
        z = z.reshape(rows // s, s, columns // s, s, -1).permute(0, 2, 1, 3, 4)
        z = z.reshape((rows // s) * (columns // s), -1)
    if projector.has("norm"):
        z = projector.layer_norm("norm", z)
    layers = len(projector.key("widths")) - 1
    for n in range(layers):
        z = projector.linear(str(n), z)
        if n + 1 < layers:
            z = ACTIVATIONS[projector.key("activation")](z)
    return z


def decode(decoder, x):
    heads, kv_heads, width = decoder.key("heads"), decoder.key("kv_heads"), decoder.key("head_width")
    assert not 0 < decoder.key("window", 0) < len(x), "a window inside the prompt"
    frequencies = torch.tensor(decoder.key("rope_frequencies"), dtype=torch.float32)
    angles = torch.arange(len(x), dtype=torch.float32)[:, None] * frequencies
    cos, sin = angles.cos() * decoder.key("rope_magnitude", 1), angles.sin() * decoder.key("rope_magnitude", 1)
    half = len(frequencies)

    def rotary(t):
        a, b, rest = t[..., :half], t[..., half:2 * half], t[..., 2 * half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)

    mask = torch.full((len(x), len(x)), float("-inf")).triu(1)
    for i in range(decoder.key("layers")):
        h = decoder.rms_norm(f"{i}.attention.norm", x)
        q, k, v = (decoder.linear(f"{i}.attention.{part}", h).reshape(len(x), -1, width) for part in "qkv")
        if decoder.has(f"{i}.attention.q_norm"):
            q, k = decoder.rms_norm(f"{i}.attention.q_norm", q), decoder.rms_norm(f"{i}.attention.k_norm", k)
        q, k, v = rotary(q.transpose(0, 1)), rotary(k.transpose(0, 1)), v.transpose(0, 1)
        k, v = k.repeat_interleave(heads // kv_heads, 0), v.repeat_interleave(heads // kv_heads, 0)
        a = torch.softmax(q @ k.transpose(1, 2) / width ** 0.5 + mask, dim=-1) @ v
        x = x + decoder.linear(f"{i}.attention.o", a.transpose(0, 1).reshape(len(x), -1))
        h = decoder.rms_norm(f"{i}.ffn.norm", x)
        x = x + decoder.linear(
            f"{i}.ffn.down", F.silu(decoder.linear(f"{i}.ffn.gate", h)) * decoder.linear(f"{i}.ffn.up", h))
    return F.linear(decoder.rms_norm("norm", x), decoder.tensor("head" if decoder.has("head") else "embedding"))


def check(model, folder):
    encoder, projector = Module(model, "encoder.image"), Module(model, "projector.image")
    decoder = Module(model, "decoder")
    pixels = torch.from_numpy(numpy.load(folder / "pixels.npy"))
    side = encoder.key("patch")
    rows, columns = pixels.shape[2] // side, pixels.shape[3] // side
    features = torch.cat([project(projector, encode(encoder, tile), rows, columns) for tile in pixels])
    ids = json.loads((folder / "ids.json").read_text())
    token = Module(model, "image").key("token", -1)
    places = torch.tensor([id == token for id in ids])
    x = decoder.tensor("embedding")[torch.tensor(ids).clamp(min=0)]
    x[places] = features
    logits = decode(decoder, x)
    errors = [float((ours - torch.from_numpy(numpy.load(folder / name))).abs().max())
              for ours, name in [(features, "features.npy"), (logits, "logits.npy")]]
    print(f"{folder.parent.name + '/' + folder.name:28} features off by {errors[0]:.1e}, logits by {errors[1]:.1e}")
    return max(errors) < TOLERANCE


def main(path, folders):
    with SquintFile(path) as model:
        if not all([check(model, pathlib.Path(folder)) for folder in folders]):
            sys.exit("beyond the tolerance")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(sys.argv[1], sys.argv[2:])
