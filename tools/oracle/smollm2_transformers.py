"""Greedy answers of SmolLM2-135M-Instruct in transformers, float32: Tests/Fixtures/models/smollm2-greedy.json.

    python tools/oracle/smollm2_transformers.py [-o OUT.json] [--save FOLDER] [--no-answers]

The GGUF's weights are dequantized with PyPI `gguf` and put into LlamaForCausalLM by name here, and the tokenizer is built
from the GGUF's tokens and merges: transformers' own reader takes this GGUF's tokenizer for CodeLlama's. The prompts' ids
are checked against llama.cpp's tokenizer. `--save` also writes the float32 model as a checkpoint folder; `--no-answers` leaves it at that.
"""

import argparse
import pathlib

import gguf
import torch
import transformers

import llamacpp
import smollm2

NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def checkpoint_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{suffix}"


def load(reader):
    value = lambda key: smollm2.field(reader, key)
    config = transformers.LlamaConfig(
        vocab_size=value("llama.vocab_size"), hidden_size=value("llama.embedding_length"),
        intermediate_size=value("llama.feed_forward_length"), num_hidden_layers=value("llama.block_count"),
        num_attention_heads=value("llama.attention.head_count"),
        num_key_value_heads=value("llama.attention.head_count_kv"),
        max_position_embeddings=value("llama.context_length"),
        rms_norm_eps=value("llama.attention.layer_norm_rms_epsilon"), tie_word_embeddings=True,
        bos_token_id=value("tokenizer.ggml.bos_token_id"), eos_token_id=value("tokenizer.ggml.eos_token_id"),
        rope_parameters={"rope_type": "default", "rope_theta": value("llama.rope.freq_base")})
    config._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(config).float().eval()
    state = {checkpoint_name(name): torch.from_numpy(array) for name, array in smollm2.dequantized(reader).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing in ([], ["lm_head.weight"]) and not unexpected, (missing, unexpected)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    return model


def greedy(model, ids, count):
    answer, gaps = [], []
    with torch.no_grad():
        output = model(torch.tensor([ids]), use_cache=True)
        for _ in range(count):
            token, gap = smollm2.top_two(output.logits[0, -1].numpy())
            answer.append(token)
            gaps.append(gap)
            output = model(torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True)
    return answer, gaps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", default=smollm2.FIXTURES / "smollm2-greedy.json")
    parser.add_argument("--save", type=pathlib.Path, help="a folder for the float32 checkpoint")
    parser.add_argument("--no-answers", action="store_true", help="only --save")
    arguments = parser.parse_args()
    torch.set_num_threads(2)

    path = smollm2.gguf_path()
    reader = gguf.GGUFReader(path)
    tokenizer = smollm2.build_tokenizer(reader)
    model = load(reader)
    if arguments.save:
        model.save_pretrained(arguments.save)
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>",
            clean_up_tokenization_spaces=False)
        fast.chat_template = smollm2.field(reader, "tokenizer.chat_template")
        fast.save_pretrained(arguments.save)
    if arguments.no_answers:
        return

    rows = []
    with llamacpp.Model(path, context=16) as reference:
        for messages, text in smollm2.prompts(reader):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert ids == reference.tokenize(text), f"llama.cpp splits this otherwise: {text!r}"
            answer, gaps = greedy(model, ids, smollm2.ANSWER_TOKENS)
            rows.append(dict(messages=messages, prompt=text, prompt_ids=ids, answer_ids=answer, gaps=gaps))
            print(f"{len(rows):2} {messages[-1]['content'][:40]!r}: least gap {min(gaps):.5f}: "
                  f"{tokenizer.decode(answer)[:70]!r}", flush=True)
    header = dict(
        model=path.name, oracle=f"transformers {transformers.__version__}, float32, eager attention",
        stop="none: 64 tokens, the end-of-turn token included", tokens=smollm2.ANSWER_TOKENS)
    smollm2.write_rows(arguments.output, header, rows)


if __name__ == "__main__":
    main()
