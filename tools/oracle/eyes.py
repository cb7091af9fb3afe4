"""InternVL3-1B, Qwen3-VL-2B and Qwen2.5-VL-3B in their real shapes, with random weights: Squint beside llama.cpp on one image.

    python tools/oracle/eyes.py make internvl3-1b|qwen3-vl-2b|qwen2.5-vl-3b FOLDER --convert SQUINT_CONVERT --llama-cpp TREE
    python tools/oracle/eyes.py race internvl3-1b|qwen3-vl-2b|qwen2.5-vl-3b FOLDER --squint SQUINT [--rounds 3] [--memory 600M]

Speed does not depend on what the weights are. `make` writes NAME.squint with the converter's default types, NAME-q4_0.gguf (llama.cpp's
own choice of types for Q4_0), NAME-mmproj-q8_0.gguf, and photo.png of 1024 × 768 pixels; tokenizer and processor are those of the tiny
fixtures, with the published limits. TREE is a llama.cpp source tree with convert_hf_to_gguf.py. `race` lets both answer in turn, with 32
tokens: the seconds of the tower and the projector, of the whole, and the peak of memory. (llama.cpp cuts InternVL's images into other
tiles than transformers: divide by the tiles.)
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy
import torch
import transformers
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

ORACLE = pathlib.Path(__file__).resolve().parent
FIXTURES = ORACLE.parent.parent / "Tests" / "Fixtures" / "vision"
QUESTION = "What is in this picture?"

INTERNVL = dict(
    fixture="internvl",
    text=dict(
        vocab_size=151_674, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=32_768, rms_norm_eps=1e-6, tie_word_embeddings=False),
    vision=dict(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=[448, 448],
        patch_size=[14, 14]),
    images=dict(size={"height": 448, "width": 448}, min_patches=1, max_patches=12))
QWEN3 = dict(
    fixture="qwen3-vl", sections=[24, 20, 20], theta=5e6,
    text=dict(
        vocab_size=151_936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=262_144, tie_word_embeddings=True),
    vision=dict(
        depth=24, hidden_size=1024, intermediate_size=4096, num_heads=16, out_hidden_size=2048, patch_size=16,
        num_position_embeddings=2304, deepstack_visual_indexes=[5, 11, 17]),
    images=dict(patch_size=16, merge_size=2, size={"shortest_edge": 65_536, "longest_edge": 16_777_216}))
QWEN25 = dict(
    fixture="qwen25-vl", sections=[16, 24, 24], theta=1e6,
    text=dict(
        vocab_size=151_936, hidden_size=2048, intermediate_size=11_008, num_hidden_layers=36, num_attention_heads=16,
        num_key_value_heads=2, max_position_embeddings=128_000, tie_word_embeddings=True),
    vision=dict(
        depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=2048, patch_size=14, window_size=112,
        fullatt_block_indexes=[7, 15, 23, 31]),
    images=dict(patch_size=14, merge_size=2, size={"shortest_edge": 3136, "longest_edge": 12_845_056}))
MODELS = {"internvl3-1b": INTERNVL, "qwen3-vl-2b": QWEN3, "qwen2.5-vl-3b": QWEN25}

# convert_hf_to_gguf.py finds the kind of a tokenizer by a hash that only published ones have.
CONVERT = """
import runpy, sys
sys.path[:0] = [{tree!r}, {tree!r} + "/gguf-py"]
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.argv = ["convert_hf_to_gguf.py", *{arguments!r}]
runpy.run_path({tree!r} + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def run(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command[:3]))} …:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
    return result.stdout


def write_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value, indent=2) + "\n")


def checkpoint(name, folder):
    """A folder in transformers' names, in bf16."""
    case = MODELS[name]
    source = FIXTURES / case["fixture"] / "checkpoint"
    folder.mkdir()
    for file in source.iterdir():
        if file.suffix in [".json", ".jinja", ".txt"] and "index" not in file.name:
            shutil.copy(file, folder)

    def configure(config):
        text = config["text_config"] if "text_config" in config else config
        text.update(case["text"])
        text.pop("layer_types", None)
        text["max_window_layers"] = text["num_hidden_layers"]
        if "head_dim" not in case["text"]:
            text.pop("head_dim", None)
        for key in ["rope_scaling", "rope_parameters"]:
            if text.get(key) and "sections" in case:
                text[key].update(mrope_section=case["sections"], rope_theta=case["theta"])
        config["vision_config"].update(case["vision"])
        config["tie_word_embeddings"] = case["text"]["tie_word_embeddings"]

    def process(processor):
        images = processor.get("image_processor", processor)
        for key in ["min_pixels", "max_pixels", "crop_size"]:
            images.pop(key, None)
        images.update(case["images"])
        if "image_seq_length" in processor:
            processor["image_seq_length"] = 256

    write_json(folder / "config.json", configure)
    for file in ["preprocessor_config.json", "processor_config.json"]:
        if (folder / file).exists():
            write_json(folder / file, process)
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder)
        model = transformers.AutoModelForImageTextToText.from_config(config)
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for key, parameter in model.state_dict().items():
        if key == "lm_head.weight" and case["text"]["tie_word_embeddings"]:
            continue
        count = parameter.numel()
        if parameter.dim() < 2:
            numbers = torch.full((count,), 1.0 if key.endswith("weight") else 0.0)
        else:
            # A block of random numbers, again and again.
            block = torch.empty(min(count, 1 << 22)).normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            numbers = block.repeat(-(-count // len(block)))[:count]
        tensors[key] = numbers.to(torch.bfloat16).reshape(parameter.shape).clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


INTERNVL_NAMES = [
    ("vision_tower.", "vision_model."), ("embeddings.cls_token", "embeddings.class_embedding"),
    ("embeddings.position_embeddings", "embeddings.position_embedding"),
    ("embeddings.patch_embeddings.projection", "embeddings.patch_embedding"), ("encoder.layer.", "encoder.layers."),
    ("attention.projection_layer", "attn.proj"), ("layernorm_before", "norm1"), ("layernorm_after", "norm2"), ("lambda_1", "ls1"),
    ("lambda_2", "ls2"), ("multi_modal_projector.layer_norm", "mlp1.0"), ("multi_modal_projector.linear_1", "mlp1.1"),
    ("multi_modal_projector.linear_2", "mlp1.3"), ("language_model.", "language_model.model."), ("lm_head", "language_model.lm_head"),
]


def for_llamacpp(name, source, folder):
    """The same in the names that llama.cpp's converter knows."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = {}
    with safe_open(source / "model.safetensors", "pt") as file:
        for key in file.keys():
            tensor, own = file.get_tensor(key), key.removeprefix("model.")
            if name != "internvl3-1b":
                # The names of transformers 4.
                tensors[own if own.startswith("visual.") else key.replace("model.language_model.", "model.")] = tensor
                continue
            if ".attention.k_proj" in own or ".attention.v_proj" in own:
                continue
            if ".attention.q_proj" in own:
                parts = [file.get_tensor(key.replace("q_proj", part)) for part in ["q_proj", "k_proj", "v_proj"]]
                tensor, own = torch.cat(parts), own.replace("attention.q_proj", "attn.qkv")
            for old, new in INTERNVL_NAMES:
                own = own.replace(old, new) if own.startswith(old) or old[0] in "eal" and old in own else own
            tensors[own] = tensor
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    if name != "internvl3-1b":
        return

    def configure(config):
        text, vision = config["text_config"], config["vision_config"]
        text.pop("rope_parameters", None)
        config.clear()
        config.update(
            architectures=["InternVLChatModel"], model_type="internvl_chat", downsample_ratio=0.5, dynamic_image_size=True,
            force_image_size=448, min_dynamic_patch=1, max_dynamic_patch=12, pad2square=False, ps_version="v2",
            template="internvl2_5", select_layer=-1, use_thumbnail=True,
            llm_config={**text, "architectures": ["Qwen2ForCausalLM"], "rope_theta": 1e6},
            vision_config={
                "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "hidden_act": "gelu", "image_size": 448,
                "patch_size": 14, "layer_norm_eps": 1e-6, "norm_type": "layer_norm", "num_channels": 3, "qk_normalization": False,
                "qkv_bias": True, "use_flash_attn": True,
                **{key: vision[key] for key in
                   ["hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers"]}})

    write_json(folder / "config.json", configure)
    for file in ["processor_config.json", "chat_template.jinja"]:
        (folder / file).unlink(missing_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(
        crop_size=448, do_center_crop=True, do_normalize=True, do_resize=True, feature_extractor_type="CLIPFeatureExtractor",
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], resample=3, size=448)))


def make(name, folder, convert, tree):
    folder.mkdir(parents=True, exist_ok=True)
    generator = numpy.random.default_rng(1)
    blocks = numpy.kron(generator.integers(0, 240, (24, 32, 3)), numpy.ones((32, 32, 1)))
    Image.fromarray((blocks + generator.integers(0, 15, blocks.shape)).astype(numpy.uint8)).save(folder / "photo.png")
    ours, theirs = folder / name, folder / f"{name}-llamacpp"
    for old in [ours, theirs]:
        shutil.rmtree(old, ignore_errors=True)
    checkpoint(name, ours)
    run([convert, ours, "-o", folder / f"{name}.squint"])
    for_llamacpp(name, ours, theirs)
    shutil.rmtree(ours)

    def gguf(output, *options):
        arguments = [str(theirs), *options, "--outfile", str(output)]
        run([sys.executable, "-c", CONVERT.format(tree=str(tree), arguments=arguments)])

    gguf(folder / f"{name}-mmproj-q8_0.gguf", "--mmproj", "--outtype", "q8_0")
    whole = folder / f"{name}-f16.gguf"
    gguf(whole, "--outtype", "f16")
    run([sys.executable, ORACLE / "llamacpp_quantize.py", folder / f"{name}-q4_0.gguf", "--type", "q4_0", "--source", whole, "--mixed"])
    whole.unlink()
    shutil.rmtree(theirs)


def race(name, folder, squint, rounds, memory):
    image, prompt = folder / "photo.png", "<|im_start|>user\n<image>" + QUESTION + "<|im_end|>\n<|im_start|>assistant\n"
    peer = [sys.executable, ORACLE / "llamacpp_see.py", folder / f"{name}-q4_0.gguf", folder / f"{name}-mmproj-q8_0.gguf", image]
    ours, theirs = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        answer = json.loads(run(
            [squint, "ask", folder / f"{name}.squint", "--image", image, QUESTION, "--json", "--max-tokens", "32", "--threads", "2",
             *(["--memory", memory] if memory else [])]))
        timings = answer["timings"]
        ours.append((
            timings["seconds_to_encode_pictures"], timings["tiles"], timings["prompt_tokens"], time.perf_counter() - start,
            answer["memory"]["peak"]))
        whole = json.loads(run([*peer, "--prompt", prompt, "-n", "32"]))
        tower = json.loads(run([*peer, "--prompt", prompt, "--tiles"]))
        theirs.append((
            tower["tile_seconds"] * tower["tiles"], tower["tiles"], whole["prompt_tokens"], whole["seconds"],
            whole["peak_resident_bytes"] - whole["before_load_bytes"]))
    print(f"{name}: medians of {rounds}, in turn")
    for who, rows in [("squint", ours), ("llama.cpp", theirs)]:
        seconds, tiles, tokens, whole, peak = (statistics.median(column) for column in zip(*rows))
        print(
            f"{who:10} tower and projector {seconds:6.2f} s for {tiles:.0f} tiles, prompt of {tokens:.0f} tokens, in all {whole:6.2f} s, "
            f"peak {peak / 2**20:.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "race"])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--convert", default="squint-convert")
    parser.add_argument("--squint", default="squint")
    parser.add_argument("--llama-cpp", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory")
    arguments = parser.parse_args()
    if arguments.action == "make":
        make(arguments.model, arguments.folder, arguments.convert, arguments.llama_cpp)
    else:
        race(arguments.model, arguments.folder, arguments.squint, arguments.rounds, arguments.memory)


if __name__ == "__main__":
    main()
