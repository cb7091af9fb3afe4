"""What ChatTS and Intern-S1-Pro do with time series, written anew in torch: the reference of the fixtures and of our own runtime.

Sources: NetManAIOps/ChatTS, chatts/utils/encoding_utils.py and chatts/vllm/chatts_vllm.py, and processing_qwen3_ts.py beside the
published weights; InternLM/lmdeploy, lmdeploy/vl/model/interns1_pro.py and lmdeploy/pytorch/models/interns1_pro_time_series.py.

    python tools/oracle/series.py FILE.npy       # what both make of a series before their encoders
"""

import math
import sys

import numpy
import torch
from torch.nn import functional

# MARK: ChatTS

QWEN2_PREFIX = "[Value Offset: {offset}|Value Scaling: {scaling}]"
QWEN3_PREFIX = "[offset={offset}|scaling={scaling}|length={length}|max={max}|min={min}|left={left}|right={right}]"


def value_preserving(series):
    """(numbers as the encoder gets them, the words of the prompt) of one series."""
    series = numpy.asarray(series)
    mean = numpy.mean(series)
    centered = series - mean
    scale = 1.0
    largest = numpy.abs(centered).max()
    if largest >= 3.0:
        scale = largest / 3.0
        centered = centered / scale
    words = {
        "offset": f"{-mean:.4f}", "scaling": f"{scale:.4f}", "length": str(len(series)), "max": f"{series.max():.4f}",
        "min": f"{series.min():.4f}", "left": f"{series[0]:.4f}", "right": f"{series[-1]:.4f}",
    }
    return torch.from_numpy(centered).half().float(), words


def chatts_patches(numbers, ts, table=None):
    """The rows that go into the MLP: [patches, width]."""
    patch, count = ts["patch_size"], len(numbers)
    padding = -count % patch
    values = torch.cat([numbers, numbers[-1:].expand(padding)]).reshape(-1, patch)
    if ts.get("use_position_embedding"):
        places = torch.cat([torch.arange(count), torch.full((padding,), ts["max_sequence_length"])])
        return torch.cat([values, table[places].reshape(len(values), -1)], dim=1)
    if ts.get("use_position_idx"):
        places = torch.cat([torch.arange(count) / max(1, count - 1), torch.full((padding,), -1.0)])
        return torch.stack([values, places.reshape(-1, patch)], dim=2).reshape(len(values), -1)
    return values


def chatts_rows(numbers, ts, tensors):
    """The rows of the decoder: [patches, hidden size]; `tensors` are those of ts_encoder."""
    rows = chatts_patches(numbers, ts, tensors.get("position_embedding.weight"))
    for layer in range(ts["num_layers"]):
        if layer:
            rows = functional.gelu(rows)
        rows = functional.linear(rows, tensors[f"mlp.{2 * layer}.weight"], tensors[f"mlp.{2 * layer}.bias"])
    return rows


# MARK: Intern-S1-Pro

MOST_POINTS = 240_000


def z_scores(series, rate=None):
    """(numbers [points, channels] as the encoder gets them, stride)."""
    series = numpy.asarray(series, dtype=numpy.float64)
    series = series[:, None] if series.ndim == 1 else series
    series = (series - series.mean(axis=0)) / (series.std(axis=0) + 1e-8)
    series = series[:MOST_POINTS]
    if rate is None:
        rate = max(len(series) / 4, 1.0)
    stride = math.floor(160 / (1 + math.exp(-rate / 100)) ** 6)
    return torch.from_numpy(series).bfloat16().float(), stride


def sinusoids(count, width):
    """[count, width]: sine and cosine in turns."""
    angles = torch.arange(count)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(count, width)


def norm(x, tensors, name, epsilon=1e-5):
    return functional.layer_norm(x, x.shape[-1:], tensors[name + ".weight"], tensors[name + ".bias"], epsilon)


def linear(x, tensors, name):
    return functional.linear(x, tensors[name + ".weight"], tensors.get(name + ".bias"))


def attention(x, weights, biases, heads, mask=None):
    """The heads' outputs side by side; weights and biases of q, k and v."""
    q, k, v = (functional.linear(x, weight, bias).unflatten(-1, (heads, -1)).transpose(-3, -2)
               for weight, bias in zip(weights, biases))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf)
    return (scores.softmax(-1) @ v).transpose(-3, -2).flatten(-2)


def subsampled(numbers, stride, tensors, heads=8):
    """[pairs of patches, 2 · width]: each patch, as many sequences as there are channels, through a convolution and a post-norm layer
    of attention, its mean over time, and that over the sequences."""
    patch = 2 * stride
    count = math.ceil((len(numbers) - patch) / stride) + 1
    missing = (count - 1) * stride + patch - len(numbers)
    numbers = functional.pad(numbers, (0, 0, 0, missing))
    rows = []
    prefix = "transformer_encoder.layers.0."
    in_weight, in_bias = tensors[prefix + "self_attn.in_proj_weight"], tensors[prefix + "self_attn.in_proj_bias"]
    for first in range(0, count * stride, stride):
        # The reference reshapes [patch, channels] without turning it: of several channels each sequence is a stretch of all of them in turns.
        x = numbers[first:first + patch].reshape(numbers.shape[1], 1, patch)
        x = functional.conv1d(x, tensors["conv.weight"], tensors["conv.bias"], padding=2).relu().transpose(1, 2)
        x = x + sinusoids(patch, x.shape[-1])
        attended = attention(x, in_weight.chunk(3), in_bias.chunk(3), heads)
        x = norm(x + linear(attended, tensors, prefix + "self_attn.out_proj"), tensors, prefix + "norm1")
        inner = linear(x, tensors, prefix + "linear1").relu()
        x = norm(x + linear(inner, tensors, prefix + "linear2"), tensors, prefix + "norm2")
        rows.append(x.mean(1).mean(0))
    rows = torch.stack(rows[:len(rows) // 2 * 2])
    return rows.reshape(len(rows) // 2, -1)


def intern_rows(numbers, stride, config, tensors):
    """The features [rows, ts_adapt_out_dim]; `tensors` are those of time_series without its projector."""
    def part(prefix):
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    encoder = part("encoder.")
    x = linear(subsampled(numbers, stride, part("encoder_embed.")), encoder, "adapt_in").T[None]
    x = functional.gelu(functional.conv1d(x, encoder["conv1.weight"], encoder["conv1.bias"], padding=1))
    x = functional.gelu(functional.conv1d(x, encoder["conv2.weight"], encoder["conv2.bias"], stride=2, padding=1))
    x = x[0].T
    table = encoder["embed_positions.weight"][:len(x)]
    x = x + functional.pad(table, (0, 0, 0, len(x) - len(table)))
    mask = torch.ones(len(x), len(x)).triu(1).bool()
    for layer in range(config["encoder_layers"]):
        own = {name.removeprefix(f"layers.{layer}."): value for name, value in encoder.items()
               if name.startswith(f"layers.{layer}.")}
        h = norm(x, own, "self_attn_layer_norm")
        weights = [own[f"self_attn.{name}_proj.weight"] for name in "qkv"]
        biases = [own.get(f"self_attn.{name}_proj.bias") for name in "qkv"]
        x = x + linear(attention(h, weights, biases, config["encoder_attention_heads"], mask), own, "self_attn.out_proj")
        x = x + linear(functional.gelu(linear(norm(x, own, "final_layer_norm"), own, "fc1")), own, "fc2")
    return linear(norm(x, encoder, "layer_norm"), encoder, "adapt_out")


def intern_projector(features, tensors):
    """The rows of the decoder; `tensors` are those of time_series.projector."""
    return linear(functional.gelu(linear(norm(features, tensors, "layer_norm"), tensors, "linear_1")), tensors, "linear_2")


def main(path):
    series = numpy.load(path)
    for column in series.T if series.ndim == 2 else [series]:
        numbers, words = value_preserving(column)
        print(QWEN2_PREFIX.format(**words), QWEN3_PREFIX.format(**words), numbers[:8].tolist())
    numbers, stride = z_scores(series)
    print(f"stride {stride}", numbers[:8].tolist())


if __name__ == "__main__":
    main(sys.argv[1])
