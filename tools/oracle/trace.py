"""Where a model's forward pass first leaves transformers': step by step beside what `squint trace` wrote.

    squint trace model.squint --ids 5 17 42 -o TRACE
    python tools/oracle/trace.py CHECKPOINT TRACE [--ids 5 17 42]
    python tools/oracle/trace.py CHECKPOINT TRACE --ids 5 17 42 --write   # transformers' own arrays, in the same form

CHECKPOINT is the Hugging Face folder that the model was converted from, with --type f32; trace with --kv f32 as well. Without
--ids the prompt is TRACE/ids.json. Arrays are f32 [positions, width], one file each:

    decoder.input.npy         the rows that enter the first layer
    decoder.N.STEP.npy        of layer N, from 0
    decoder.norm.npy          behind the last norm
    decoder.logits.npy        [positions, vocabulary]

    attention.norm            behind the layer's first norm
    attention.q, .k, .v       behind the projection, before head norms and rotation: heads side by side
    attention.heads           what the heads give, side by side, before the projection back
    attention.post_norm       behind the norm of the block's output (Gemma 3)
    attention                 the residual stream behind the block
    convolution.norm          LFM2's layers that convolve: behind the first norm
    convolution.bcx           behind the projection to B, C and x
    convolution.gated         C · convolution(B · x)
    convolution               the residual stream behind the block
    ffn.norm, ffn.post_norm   as above
    ffn.router                Qwen3-MoE's layers with experts: what the router gives, before the softmax
    ffn                       the residual stream behind the layer

Prints each step's largest absolute difference, and the same as a part of the reference's root mean square. The last line names
the first step beyond --tolerance, or that is not there; then the exit code is 1. Families: llama, mistral, qwen2, qwen3,
qwen3_moe, gemma3, lfm2. Transformers runs in float32 with eager attention.
"""

import argparse
import json
import pathlib
import sys

import numpy
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fixtures"))

import models_tiny  # noqa: E402

TOLERANCE = 1e-3

INPUT, OUTPUT = "input", "output"

# Of a layer, in the order of computation: step, module, and whether its input or its output is meant.
ATTENTION = [
    ("attention.q", "self_attn.q_proj", OUTPUT), ("attention.k", "self_attn.k_proj", OUTPUT),
    ("attention.v", "self_attn.v_proj", OUTPUT),
]
LLAMA = [
    ("attention.norm", "input_layernorm", OUTPUT), *ATTENTION, ("attention.heads", "self_attn.o_proj", INPUT),
    ("attention", "post_attention_layernorm", INPUT), ("ffn.norm", "post_attention_layernorm", OUTPUT), ("ffn", "", OUTPUT),
]
GEMMA3 = [
    ("attention.norm", "input_layernorm", OUTPUT), *ATTENTION, ("attention.heads", "self_attn.o_proj", INPUT),
    ("attention.post_norm", "post_attention_layernorm", OUTPUT), ("attention", "pre_feedforward_layernorm", INPUT),
    ("ffn.norm", "pre_feedforward_layernorm", OUTPUT), ("ffn.post_norm", "post_feedforward_layernorm", OUTPUT), ("ffn", "", OUTPUT),
]
LFM2_FFN = [("ffn.norm", "ffn_norm", OUTPUT), ("ffn", "", OUTPUT)]
LFM2_ATTENTION = [
    ("attention.norm", "operator_norm", OUTPUT), *ATTENTION, ("attention.heads", "self_attn.out_proj", INPUT),
    ("attention", "ffn_norm", INPUT), *LFM2_FFN,
]
LFM2_CONVOLUTION = [
    ("convolution.norm", "operator_norm", OUTPUT), ("convolution.bcx", "conv.in_proj", OUTPUT),
    ("convolution.gated", "conv.out_proj", INPUT), ("convolution", "ffn_norm", INPUT), *LFM2_FFN,
]


QWEN3MOE = [*LLAMA[:-1], ("ffn.router", "mlp.gate", OUTPUT), LLAMA[-1]]


def layer_steps(kind, layer):
    if kind == "qwen3_moe":
        return QWEN3MOE if hasattr(layer.mlp, "experts") else LLAMA
    if kind == "lfm2":
        return LFM2_ATTENTION if hasattr(layer, "self_attn") else LFM2_CONVOLUTION
    steps = {"llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA, "gemma3_text": GEMMA3}.get(kind)
    if steps is None:
        raise SystemExit(f"the model is a {kind}; known are llama, mistral, qwen2, qwen3, qwen3_moe, gemma3 and lfm2")
    return steps


def named_steps(model):
    """[(name, module, side)] of the whole decoder, in the order of computation."""
    decoder, kind = model.model, model.config.model_type
    result = [("decoder.input", decoder.layers[0], INPUT)]
    for index, layer in enumerate(decoder.layers):
        for step, path, side in layer_steps(kind, layer):
            result.append((f"decoder.{index}.{step}", layer.get_submodule(path), side))
    last_norm = decoder.embedding_norm if kind == "lfm2" else decoder.norm
    return [*result, ("decoder.norm", last_norm, OUTPUT), ("decoder.logits", model.lm_head, OUTPUT)]


def trace(model, ids):
    """[(name, f32 array [positions, width])] of one forward pass over `ids`."""
    steps = named_steps(model)
    arrays, handles = {}, []

    def record(name, side):
        def hook(_, positional, named, output):
            value = output if side == OUTPUT else positional[0] if positional else named["hidden_states"]
            value = value[0] if isinstance(value, tuple) else value
            # A copy: what comes behind may write into it. Heads may lie in axes of their own.
            arrays[name] = value.detach().reshape(len(ids), -1).float().numpy().copy()

        return hook

    for name, module, side in steps:
        handles.append(module.register_forward_hook(record(name, side), with_kwargs=True))
    with torch.no_grad():
        model(torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return [(name, arrays[name]) for name, _, _ in steps]


def compare(reference, folder, tolerance):
    """Prints the table; returns (name, what is wrong) of the first step that is wrong, or None."""
    first = None
    print(f"{'step':32} {'width':>7} {'largest difference':>19} {'relative':>10}")
    for name, expected in reference:
        path = folder / f"{name}.npy"
        wrong = None
        if not path.exists():
            wrong, line = "is not there", f"{name:32} {expected.shape[1]:7} {'not there':>19}"
        else:
            ours = numpy.load(path)
            if ours.shape != expected.shape:
                wrong = f"has shape {list(ours.shape)}, not {list(expected.shape)}"
                line = f"{name:32} {expected.shape[1]:7} {str(list(ours.shape)):>19}"
            else:
                # What is not a number differs by more than every tolerance.
                far = float(numpy.nan_to_num(numpy.abs(ours - expected), nan=numpy.inf).max())
                relative = far / max(float(numpy.sqrt(numpy.mean(numpy.square(expected, dtype=numpy.float64)))), 1e-30)
                if not relative <= tolerance:
                    position = int(numpy.nan_to_num(numpy.abs(ours - expected), nan=numpy.inf).max(1).argmax())
                    wrong = f"differs by {far:.2e}, {relative:.1e} of its size; most at position {position}"
                line = f"{name:32} {expected.shape[1]:7} {far:19.3e} {relative:10.1e}"
        print(line + ("  <" if wrong else ""))
        if wrong and first is None:
            first = (name, wrong)
    unknown = sorted({path.stem for path in folder.glob("decoder.*.npy")} - {name for name, _ in reference})
    if unknown:
        print(f"not compared: {', '.join(unknown)}")
    return first


def prompt_ids(arguments):
    if arguments.ids:
        return arguments.ids
    path = arguments.trace / "ids.json"
    if not path.exists():
        raise SystemExit(f"{path} does not exist: give the prompt with --ids")
    content = json.loads(path.read_text())
    return content["ids"] if isinstance(content, dict) else content


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("trace", type=pathlib.Path)
    parser.add_argument("--ids", type=int, nargs="+", help="the prompt's tokens; default: TRACE/ids.json")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="how much of its size a step may differ (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write transformers' arrays to TRACE instead of comparing")
    arguments = parser.parse_args()
    ids = prompt_ids(arguments)
    reference = trace(models_tiny.load(arguments.checkpoint), ids)
    if arguments.write:
        arguments.trace.mkdir(parents=True, exist_ok=True)
        (arguments.trace / "ids.json").write_text(json.dumps(ids) + "\n")
        for name, array in reference:
            numpy.save(arguments.trace / f"{name}.npy", array.astype("<f4"))
        return
    first = compare(reference, arguments.trace, arguments.tolerance)
    if first is None:
        print(f"all {len(reference)} steps agree within {arguments.tolerance:g} of their size")
        return
    print(f"{first[0]} {first[1]}")
    raise SystemExit(1)


if __name__ == "__main__":
    main()
