"""What int8 and int4 lose in models that see, initialized as transformers does it.

    python tools/oracle/vision_int8.py [--squint .build/release/squint] [--convert .build/release/squint-convert]

Takes the configurations and processors of Tests/Fixtures/vision, makes new weights, and prints for each model and type the mean
and the least cosine between Squint's logits and transformers' in float32, over all positions of a prompt with two images.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

import numpy
import torch
import transformers
from PIL import Image

VISION = pathlib.Path(__file__).resolve().parents[2] / "Tests" / "Fixtures" / "vision"
MODELS = ["llava-clip", "llava-siglip", "llava-dinov2", "idefics3", "idefics3-whole", "smolvlm", "smolvlm-single"]
PROMPT = "The quick <image> and the lazy <image>. What is the capital of France?"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--squint", default=".build/release/squint")
    parser.add_argument("--convert", default=".build/release/squint-convert")
    arguments = parser.parse_args()
    images = [VISION / "pictures" / "wide.png", VISION / "pictures" / "square.png"]
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            shutil.copytree(VISION / name / "checkpoint", folder / "model")
            for file in (folder / "model").glob("*.safetensors"):
                file.unlink()
            torch.manual_seed(0)
            configuration = transformers.AutoConfig.from_pretrained(folder / "model")
            configuration._attn_implementation = "eager"
            model = transformers.AutoModelForImageTextToText.from_config(configuration).float().eval()
            model.save_pretrained(folder / "model")
            processor = transformers.AutoProcessor.from_pretrained(folder / "model")
            processor.image_processor = transformers.AutoImageProcessor.from_pretrained(folder / "model", backend="pil")
            inputs = processor(text=PROMPT, images=[Image.open(path) for path in images], return_tensors="pt")
            with torch.no_grad():
                wanted = model(**inputs).logits[0].numpy()
            for kind in ["f32", "int8", "int4"]:
                file, logits = folder / f"{kind}.squint", folder / "logits.npy"
                subprocess.run([arguments.convert, folder / "model", "--type", kind, "-o", file], check=True,
                               capture_output=True)
                images = [word for path in images for word in ("--image", path)]
                cache = ["--kv", "f32"] if kind == "f32" else []
                subprocess.run([arguments.squint, "logits", file, *images, "--prompt", PROMPT, "-o", logits, *cache],
                               check=True)
                got = numpy.load(logits)
                assert got.shape == wanted.shape, (got.shape, wanted.shape)
                cosines = (got * wanted).sum(1) / (numpy.linalg.norm(got, axis=1) * numpy.linalg.norm(wanted, axis=1))
                print(json.dumps({
                    "model": name, "type": kind, "positions": len(got), "cosine_mean": round(float(cosines.mean()), 6),
                    "cosine_least": round(float(cosines.min()), 6),
                    "largest_difference": float(numpy.abs(got - wanted).max())}), flush=True)


if __name__ == "__main__":
    main()
