"""How exactly llama.cpp's answers on a quantized GGUF can be asked of another program.

    python tools/oracle/smollm2_noise.py [--prompts 20] [--save FOLDER]

llama.cpp rounds activations to 8 bits before every quantized product. A difference of one rounding error anywhere (another
order of summation, another batch size) flips some of those roundings, and layer after layer the flips grow until they are
as large as the rounding itself. Over every prompt followed by transformers' answer, position by position, this prints how
far apart are

    float32 and llama.cpp           the cost of 8-bit activations
    llama.cpp and llama.cpp         one pass over all tokens, and one token at a time
    llama.cpp and llama.cpp         f16 key/value cache with flash attention, and f32 without
    rounded and rounded             transformers with activations rounded as Q8_0 does, before and after the first norm's
                                    weights are multiplied by 1 ± 1e-6

as the mean KL divergence, the top-1 agreement over the answer's positions, and the number of answers that agree in every
one. A program whose divergence from float32 is no larger than llama.cpp's is as right as llama.cpp is; one that should
agree token by token should be held against float32 (smollm2-greedy.json). --save writes the float32 and llama.cpp logits
of every prompt with its answer as .npy files for compare_logits.py.
"""

import argparse
import json
import pathlib

import gguf
import numpy
import torch

import compare_logits
import llamacpp
import smollm2
import smollm2_transformers


def rounded_to_8_bits(module, arguments):
    """Activations as Q8_0 blocks: 32 values, one scale of largest / 127, in f16."""
    x = arguments[0]
    groups = x.reshape(*x.shape[:-1], -1, 32)
    largest = groups.abs().amax(-1, keepdim=True)
    codes = torch.round(groups * torch.where(largest > 0, 127 / largest, 0))
    return ((codes * (largest / 127).half().float()).reshape(x.shape),)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--save", type=pathlib.Path)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    rows = json.loads((smollm2.FIXTURES / "smollm2-greedy.json").read_text())["answers"][: arguments.prompts]
    texts = [row["prompt_ids"] + row["answer_ids"][:-1] for row in rows]

    def transformer(ids):
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0].numpy()

    def through(singly=False, **settings):
        result = []
        with llamacpp.Model(smollm2.gguf_path(), **settings) as reference:
            for ids in texts:
                reference.clear()
                parts = [reference.decode([i]) for i in ids] if singly else [reference.decode(ids, every=True)]
                result.append(numpy.concatenate(parts))
        return result

    def report(name, left, right):
        divergence, agreement, whole = [], [], 0
        for row, a, b in zip(rows, left, right):
            start = len(row["prompt_ids"]) - 1
            result = compare_logits.compare(a[start:], b[start:])
            divergence.append(result["kl_mean"])
            agreement.append(result["top1_agreement"])
            whole += result["top1_agreement"] == 1
        print(f"{name:58} KL {numpy.mean(divergence):.5f}  top-1 {numpy.mean(agreement):.4f}  "
              f"whole answers {whole} of {len(rows)}", flush=True)

    model = smollm2_transformers.load(gguf.GGUFReader(smollm2.gguf_path()))
    exact = [transformer(ids) for ids in texts]
    default = through()
    report("float32 and llama.cpp", exact, default)
    if arguments.save:
        arguments.save.mkdir(parents=True, exist_ok=True)
        for index, (a, b) in enumerate(zip(exact, default)):
            numpy.save(arguments.save / f"{index:02}-float32.npy", a)
            numpy.save(arguments.save / f"{index:02}-llamacpp.npy", b)
    report("llama.cpp: all at once and one at a time", default, through(singly=True))
    report("llama.cpp: f16 cache and f32 cache without flash attention", default, through(kv="f32", flash=False))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(rounded_to_8_bits)
    rounded = [transformer(ids) for ids in texts]
    report("float32 and rounded", exact, rounded)
    with torch.no_grad():
        weight = model.model.layers[0].input_layernorm.weight
        weight.mul_(1 + 1e-6 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    report("rounded, and rounded after a change of 1e-6", rounded, [transformer(ids) for ids in texts])


if __name__ == "__main__":
    main()
