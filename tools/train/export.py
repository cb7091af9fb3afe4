"""Writes what squint-convert takes of a trained model.

    python export.py nano|mini FOLDER [--data FOLDER]

nano: the whole model, in float16, a folder of parts (encoder/, decoder/, projector.safetensors).
mini: what was trained, in float16: projector.safetensors, adapter/ (LoRA factors as PEFT stores them), preprocessor_config.json.
"""

import argparse
import json
import pathlib

import torch
import transformers
from safetensors.torch import load_file, save_file

import data
import model as parts
from profiles import PROFILES
from scenes import Scenes
from train import assemble

SHIPPED = pathlib.Path(__file__).parents[2] / "models"


def trained(profile, out):
    """The model with the weights of the last stage that is done, or else with those that come with Squint, in f32; and which these are."""
    folder = data.folder(profile, out)
    done = [path for number, stage in enumerate(profile.stages, 1) if (path := folder / f"{number}-{stage.name}.pt").exists()]
    if not done:
        return shipped(profile, SHIPPED / f"squint-{profile.name}")
    maker = Scenes(profile.size, profile.grain, profile.shapes, profile.name == "nano")
    model = assemble(profile, maker)
    saved = torch.load(done[-1], weights_only=True, map_location="cpu")
    weights = {name: value for name, value in saved["model"].items() if not name.startswith("head.")}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    return model.float().eval(), f"after the stage {done[-1].stem}"


def shipped(profile, folder):
    """The model that `export` wrote into a folder."""
    if profile.frozen_encoder:
        model = assemble(profile, None)
        factors = load_file(folder / "adapter/adapter_model.safetensors")
        weights = {"decoder." + name.removeprefix("base_model.model.").removesuffix(".weight"): value for name, value in factors.items()}
    else:
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder / "decoder")
        model = parts.VisionLanguageModel(
            profile, transformers.SiglipVisionModel.from_pretrained(folder / "encoder"),
            transformers.LlamaForCausalLM.from_pretrained(folder / "decoder"), tokenizer)
        weights = {}
    weights |= {f"projector.{name}": value for name, value in load_file(folder / "projector.safetensors").items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    return model.float().eval(), "as it comes with Squint"


def preprocessor(profile):
    return {
        "image_processor_type": "SiglipImageProcessor", "do_resize": True, "size": {"height": profile.size, "width": profile.size},
        "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": profile.mean,
        "image_std": profile.std,
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def export(model, profile, folder):
    folder.mkdir(parents=True, exist_ok=True)
    layers = {name: value.half().contiguous() for name, value in model.projector.folded().items()}
    save_file(layers, folder / "projector.safetensors", metadata={"activation": "gelu", "shuffle": str(profile.shuffle)})
    if not profile.frozen_encoder:
        model.half()
        model.encoder.save_pretrained(folder / "encoder")
        write_json(folder / "encoder/preprocessor_config.json", preprocessor(profile))
        model.decoder.save_pretrained(folder / "decoder")
        model.tokenizer.save_pretrained(folder / "decoder")
        model.float()
        return
    write_json(folder / "preprocessor_config.json", preprocessor(profile))
    (folder / "adapter").mkdir(exist_ok=True)
    factors = {f"base_model.model.{name.removeprefix('decoder.')}.weight": value.half().contiguous()
               for name, value in model.state_dict().items() if "lora_" in name}
    save_file(factors, folder / "adapter/adapter_model.safetensors")
    write_json(folder / "adapter/adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": parts.LORA_RANK, "lora_alpha": parts.LORA_ALPHA, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
        "use_rslora": False, "use_dora": False, "target_modules": list(parts.LORA_TARGETS), "modules_to_save": None,
    })


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=PROFILES)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--data", help="where train.py wrote; default: .tools/train")
    arguments = parser.parse_args()
    profile = PROFILES[arguments.profile]
    model, stage = trained(profile, arguments.data)
    export(model, profile, arguments.folder)
    print(f"{arguments.folder}: {profile.name}, {stage}")


if __name__ == "__main__":
    main()
