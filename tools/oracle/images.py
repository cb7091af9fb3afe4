"""How far the pixels of `squint embed --stage pixels` are from those of transformers, for random images.

    python tools/oracle/images.py MODEL.squint CHECKPOINT [--count 200] [--largest 4000x3000] [--seed 0]

CHECKPOINT is the folder that MODEL.squint was converted from: its processor, in the Pillow-backed form, is the reference.
The images (noise, gradients and shapes, from 8 × 8 pixels on) are JPEG of random quality, subsampling, scans and
orientation, and PNG of random modes, in turn. Differences are in levels: 1 is 1/255 before normalization. Prints a line
for each image that differs at all, and a summary; fails where a difference is above --tolerance.
"""

import argparse
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy
from PIL import Image, ImageDraw, ImageOps
from transformers import AutoImageProcessor


def image(width, height, seed):
    generator = numpy.random.default_rng(seed)
    y, x = numpy.mgrid[0:height, 0:width]
    ramps = [x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + 2 * y) % 256]
    image = Image.fromarray(numpy.stack(ramps, -1).astype(numpy.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(generator.integers(1, 30)):
        corners = [*sorted(generator.integers(0, width, 2)), *sorted(generator.integers(0, height, 2))]
        box = [int(corners[index]) for index in (0, 2, 1, 3)]
        color = tuple(int(level) for level in generator.integers(0, 256, 3))
        kind = generator.integers(0, 3)
        if kind == 0:
            draw.ellipse(box, fill=color)
        elif kind == 1:
            draw.rectangle(box, fill=color)
        else:
            draw.line(box, fill=color, width=int(generator.integers(1, 20)))
    amplitude = int(generator.integers(0, 60))
    noise = generator.integers(-amplitude, amplitude + 1, (height, width, 3), dtype=numpy.int16)
    return Image.fromarray((numpy.array(image).astype(numpy.int16) + noise).clip(0, 255).astype(numpy.uint8))


def save(image, path, chance):
    """Writes a JPEG or PNG of random settings, and says which."""
    exif = Image.Exif()
    exif[0x0112] = orientation = chance.randint(1, 8)
    if path.suffix == ".jpg":
        mode = chance.choice(["RGB"] * 6 + ["L", "CMYK"])
        options = {"quality": chance.randint(20, 98), "progressive": chance.random() < 0.3}
        if mode == "RGB":
            options["subsampling"] = chance.randint(0, 2)
    else:
        mode = chance.choice(["RGB", "RGB", "RGBA", "L", "LA", "P", "1"])
        options = {"compress_level": 1}
    if mode in ("RGBA", "LA"):
        image.putalpha(image.getchannel(2))
    image.convert(mode).save(path, exif=exif, **options)
    return f"{mode} {options}, orientation {orientation}"


def tiles(processor, image):
    """What transformers gives the encoder, [tile, 3, height, width], the overview last."""
    kind = type(processor).__name__.removesuffix("Pil")
    # InternVLProcessor asks for tiles whatever the image processor's file says.
    options = {"crop_to_patches": True} if kind == "GotOcr2ImageProcessor" else {}
    output = processor(image, return_tensors="np", **options)
    pixels = numpy.asarray(output["pixel_values"], dtype=numpy.float32)
    if kind == "Qwen2VLImageProcessor":
        _, rows, columns = (int(count) for count in output["image_grid_thw"][0])
        merge, patch = processor.merge_size, processor.patch_size
        patches = pixels.reshape(rows // merge, columns // merge, merge, merge, 3, -1, patch, patch)[:, :, :, :, :, 0]
        return patches.transpose(4, 0, 2, 5, 1, 3, 6).reshape(1, 3, rows * patch, columns * patch)
    pixels = pixels.reshape(-1, *pixels.shape[-3:])
    if kind in ("LlavaNextImageProcessor", "LlavaOnevisionImageProcessor"):
        pixels = numpy.roll(pixels, -1, axis=0)
    return pixels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("checkpoint")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--largest", default="4000x3000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=1)
    parser.add_argument("--squint", default=".build/release/squint")
    arguments = parser.parse_args()

    processor = AutoImageProcessor.from_pretrained(arguments.checkpoint, backend="pil")
    std = numpy.array(processor.image_std if processor.do_normalize else [1, 1, 1], dtype=numpy.float64)
    level = (processor.rescale_factor if processor.do_rescale else 1) / std
    chance = random.Random(arguments.seed)
    width_limit, height_limit = (int(side) for side in arguments.largest.split("x"))
    largest, same = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        for index in range(arguments.count):
            width, height = 1, 201
            while max(width, height) > 200 * min(width, height):  # narrower ones are refused
                width = round(8 * (width_limit / 8) ** chance.random())
                height = round(8 * (height_limit / 8) ** chance.random())
            path = pathlib.Path(folder) / f"{index}{'.jpg' if index % 2 == 0 else '.png'}"
            settings = save(image(width, height, arguments.seed * 100_003 + index), path, chance)
            output = path.with_suffix(".npy")
            command = [arguments.squint, "embed", arguments.model, "--image", path, "--stage", "pixels", "-o", output]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode != 0:
                sys.exit(f"{width} × {height} {settings}: {run.stderr.strip()}")
            ours = numpy.load(output)
            theirs = tiles(processor, ImageOps.exif_transpose(Image.open(path)))
            if ours.shape != theirs.shape:
                sys.exit(f"{width} × {height} {settings}: tiles {ours.shape}, not {theirs.shape}")
            difference = float((numpy.abs(ours.astype(numpy.float64) - theirs) / level[:, None, None]).max())
            largest = max(largest, difference)
            if numpy.array_equal(ours, theirs):
                same += 1
            else:
                print(f"{width} × {height} {settings}: differs by up to {difference:.6f} levels", flush=True)
            path.unlink()
            output.unlink()
    print(f"{arguments.count} images, {same} the same to the bit, largest difference {largest:.6f} levels")
    if largest > arguments.tolerance:
        sys.exit("above the tolerance")


if __name__ == "__main__":
    main()
