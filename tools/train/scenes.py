"""Scenes: one to three things on a background, where they are, and questions with their answers.

A scene is a function of its seed and of whether it is held out. Two names that are held out as a pair (one pair in eight, by a hash) never
stand in one training scene; each held-out scene of two or three things has such a pair.
"""

import hashlib
import pathlib
import random
from dataclasses import dataclass

import numpy
from PIL import Image, ImageDraw, ImageFilter

STAMPS = pathlib.Path("/usr/share/tuxpaint/stamps")
NUMBERS = ["Zero", "One", "Two", "Three"]

COLOURS = {  # what a shape is painted with, around which its colour varies
    "red": (214, 30, 34), "orange": (245, 140, 20), "yellow": (245, 220, 40), "green": (40, 150, 50),
    "blue": (30, 80, 210), "purple": (130, 50, 165), "pink": (250, 150, 195), "brown": (120, 72, 36),
    "black": (22, 22, 24), "white": (246, 246, 246), "grey": (128, 128, 128),
}
SHAPES = ["circle", "square", "triangle", "star", "heart", "cross", "ring"]
PLACES = {1: [""], 2: ["on the left", "on the right"], 3: ["on the left", "in the middle", "on the right"]}
PLACES_ONE_ABOVE_THE_OTHER = ["at the top", "at the bottom"]
PLURAL = {"scissors", "pants", "pliers", "binoculars", "grapes"}


@dataclass(frozen=True)
class Thing:
    """A name, and the images of it that are trained on and that are not."""
    name: str
    seen: tuple
    unseen: tuple
    in_nano: bool


def read_things():
    """The things of things.txt."""
    things = []
    for line in (pathlib.Path(__file__).parent / "things.txt").read_text().splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, files = line.split(":")
        files = files.split()
        things.append(Thing(
            name.rstrip("*"), tuple(file for file in files if file[0] != "-"),
            tuple(file[1:] for file in files if file[0] == "-"), name.endswith("*")))
    return things


def with_article(name):
    if name in PLURAL:
        return name
    return ("an " if name[0] in "aeiou" else "a ") + name


def sentence(text):
    return text[0].upper() + text[1:] + "."


def verb(name):
    return "are" if name in PLURAL else "is"


def colour_name(rgb):
    """The word for each colour of [..., 3], 0 to 255."""
    r, g, b = (rgb[..., channel].astype(numpy.float32) for channel in range(3))
    high, low = rgb.max(-1).astype(numpy.float32), rgb.min(-1).astype(numpy.float32)
    chroma = high - low
    with numpy.errstate(invalid="ignore", divide="ignore"):
        hue = numpy.where(
            high == r, (g - b) / chroma % 6, numpy.where(high == g, (b - r) / chroma + 2, (r - g) / chroma + 4)) * 60
    names = numpy.full(rgb.shape[:-1], "grey", dtype="<U6")
    names[high < 60] = "black"
    names[(low > 190)] = "white"
    coloured = (chroma > 45) & (high >= 60) & (chroma > 0.22 * high)
    for name, start, end in [("red", 0, 14), ("orange", 14, 40), ("yellow", 40, 66), ("green", 66, 165),
                             ("blue", 165, 258), ("purple", 258, 300), ("pink", 300, 345), ("red", 345, 361)]:
        names[coloured & (hue >= start) & (hue < end)] = name
    names[coloured & (hue < 40) & (high < 165)] = "brown"
    names[coloured & ((hue >= 345) | (hue < 14)) & (low > 130)] = "pink"
    return names


class CutOut:
    """An image with transparency, cut to what is there, at most 256 pixels long, and its colour's name where one prevails."""

    def __init__(self, path):
        image = Image.open(path).convert("RGBA")
        image = image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha > 16)).getbbox())
        image.thumbnail((256, 256), Image.Resampling.LANCZOS)
        self.image = image
        pixels = numpy.asarray(image)
        names, counts = numpy.unique(colour_name(pixels[..., :3][pixels[..., 3] > 128]), return_counts=True)
        prevails = str(names[counts.argmax()]) if counts.max() > 0.6 * counts.sum() else None
        self.colour = None if prevails == "grey" else prevails  # much is grey that nobody would call so


def shape(kind, colour, rng):
    """A drawn shape of 128 × 128 pixels, RGBA, in a shade of the colour."""
    side = 512
    image = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(image)
    fill = tuple(max(0, min(255, value + rng.randint(-14, 14))) for value in COLOURS[colour])
    at = lambda points: [(side / 2 + x * side / 2.1, side / 2 + y * side / 2.1) for x, y in points]
    turn = lambda count, radius, angle: [
        (radius[i % len(radius)] * numpy.sin(angle + 2 * numpy.pi * i / count),
         -radius[i % len(radius)] * numpy.cos(angle + 2 * numpy.pi * i / count)) for i in range(count)]
    if kind == "circle":
        draw.ellipse(at([(-1, -1), (1, 1)]), fill=fill)
    elif kind == "ring":
        draw.ellipse(at([(-1, -1), (1, 1)]), outline=fill, width=side // 6)
    elif kind == "square":
        draw.rectangle(at([(-0.88, -0.88), (0.88, 0.88)]), fill=fill)
    elif kind == "triangle":
        draw.polygon(at(turn(3, [1], 0)), fill=fill)
    elif kind == "star":
        draw.polygon(at(turn(10, [1, 0.42], 0)), fill=fill)
    elif kind == "cross":
        draw.rectangle(at([(-1, -0.33), (1, 0.33)]), fill=fill)
        draw.rectangle(at([(-0.33, -1), (0.33, 1)]), fill=fill)
    elif kind == "heart":
        t = numpy.linspace(0, 2 * numpy.pi, 80)
        x = numpy.sin(t) ** 3
        y = -(13 * numpy.cos(t) - 5 * numpy.cos(2 * t) - 2 * numpy.cos(3 * t) - numpy.cos(4 * t)) / 16
        draw.polygon(at(list(zip(x, y))), fill=fill)
    return image.resize((128, 128), Image.Resampling.BOX)


def background(size, rng, simple):
    """A plain, graded, noisy, striped or landscape-like background, RGB; a simple one is plain, graded, a land or a room."""
    noise = numpy.random.default_rng(rng.getrandbits(32))
    colour = lambda: numpy.array([rng.randint(20, 250) for _ in range(3)], dtype=numpy.float32)
    pale = lambda: 255 - (255 - colour()) * rng.uniform(0.15, 0.6)
    y, x = numpy.mgrid[0:size, 0:size].astype(numpy.float32) / size
    kind = rng.choice(["plain", "graded", "land", "room", "bars"] if simple else ["plain", "plain", "graded", "graded", "noise", "stripes", "land", "room", "bars"])
    first, second = (pale(), pale()) if rng.random() < 0.7 else (colour(), colour())
    if kind == "graded":
        angle = rng.uniform(0, 2 * numpy.pi)
        t = (x - 0.5) * numpy.cos(angle) + (y - 0.5) * numpy.sin(angle) + 0.5
        pixels = first + (second - first) * numpy.clip(t, 0, 1)[..., None]
    elif kind == "stripes":
        angle, width = rng.uniform(0, numpy.pi), rng.uniform(3, 14)
        t = numpy.floor((x * numpy.cos(angle) + y * numpy.sin(angle)) * width) % 2
        second = first + (second - first) * 0.4
        pixels = first + (second - first) * t[..., None]
    elif kind == "land":
        line = rng.uniform(0.35, 0.75)
        sky = numpy.array([rng.randint(120, 210), rng.randint(170, 230), rng.randint(215, 255)])
        ground = numpy.array(rng.choice([(96, 140, 60), (190, 170, 120), (130, 120, 110), (230, 235, 240), (70, 110, 70)]))
        pixels = numpy.where((y > line + 0.03 * numpy.sin(x * rng.uniform(3, 12)))[..., None], ground, sky) + (y * 20)[..., None]
    elif kind == "room":
        pixels = numpy.where((y > rng.uniform(0.55, 0.8))[..., None], second * 0.7, first)
    elif kind == "bars":  # what a photograph of other proportions gets beside it
        width = rng.uniform(0.06, 0.2)
        side = x if rng.random() < 0.5 else y
        pixels = numpy.where(((side < width) | (side > 1 - width))[..., None], rng.choice([0, 127, 255]), first)
    else:  # plain, or to be noise
        pixels = numpy.broadcast_to(first, (size, size, 3)).copy()
    if kind == "noise" or rng.random() < (0.2 if simple else 0.4):
        amount = rng.uniform(20, 70) if kind == "noise" else rng.uniform(4, 20)
        for cells in (3,) if simple else (3, 9):
            grid = noise.standard_normal((cells, cells, 1 if rng.random() < 0.5 else 3)).astype(numpy.float32)
            for channel in range(grid.shape[2]):
                layer = Image.fromarray(grid[..., channel]).resize((size, size), Image.Resampling.BICUBIC)
                target = slice(None) if grid.shape[2] == 1 else slice(channel, channel + 1)
                pixels[..., target] += numpy.asarray(layer)[..., None] * amount / (cells ** 0.5)
    return Image.fromarray(numpy.clip(pixels, 0, 255).astype(numpy.uint8))


def stands_out(image, behind):
    """Whether a cut-out differs enough from what it will cover to be seen."""
    pixels = numpy.asarray(image, dtype=numpy.float32)
    alpha = pixels[..., 3:] / 255
    difference = (numpy.abs(pixels[..., :3] - numpy.asarray(behind, dtype=numpy.float32)) * alpha).sum((0, 1)) / max(alpha.sum(), 1)
    return difference.max() > 40


def is_held_out(a, b):
    """Whether two names are never seen together in training."""
    return hashlib.sha256("+".join(sorted((a, b))).encode()).digest()[0] < 32


@dataclass
class Shown:
    """A thing in a scene."""
    name: str  # "dog", "red circle"
    kind: str  # "dog", "circle"
    colour: str  # or None where none prevails
    file: str  # or "" for a drawn shape
    place: str  # "on the left", "at the top", …; "" where it is alone


class Scenes:
    """Makes scenes of `size` pixels, with the kinds `kinds` and the cut-outs that are (not) trained on.

    - size: the side of an image in pixels; grain: the side of the squares whose coverage is told.
    - shapes: the share of things that are drawn shapes.
    """

    def __init__(self, size, grain, shapes=0.0, nano=False):
        self.size, self.grain, self.shapes, self.nano = size, grain, shapes, nano
        self.things = [thing for thing in read_things() if thing.in_nano or not nano]
        # Names that a shape has, too, would be ambiguous.
        self.kinds = [thing.name for thing in self.things] + (SHAPES if shapes else [])
        self.files = {}

    def cut_out(self, file):
        if file not in self.files:
            self.files[file] = CutOut(STAMPS / file)
        return self.files[file]

    def pick(self, rng, unseen):
        """A thing, not yet at a place."""
        if rng.random() < self.shapes:
            kind, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
            return Shown(f"{colour} {kind}", kind, colour, "", "")
        things = [thing for thing in self.things if thing.unseen] if unseen else self.things
        thing = rng.choice(things)
        file = rng.choice(thing.unseen if unseen else thing.seen[:2] if self.nano else thing.seen)
        return Shown(thing.name, thing.name, self.cut_out(file).colour, file, "")

    def __call__(self, seed, split="train", count=None):
        """A scene.

        - split: "train"; "held out" (compositions never seen); "unseen" (cut-outs never seen).
        - count: how many things; None: one to three.
        Returns the image, the things in order, and coverage [things, rows, columns]: the share of each square.
        """
        rng = random.Random(f"{split} {seed}")
        count = count or rng.choice([1, 1, 2, 2, 2, 3, 3])
        while True:
            shown = [self.pick(rng, split == "unseen") for _ in range(count)]
            names = [one.name for one in shown]
            pairs = [is_held_out(a, b) for i, a in enumerate(names) for b in names[:i]]
            if len(set(names)) < count or (split == "train" and any(pairs)):
                continue
            if split == "held out" and count > 1 and not any(pairs):
                continue
            break
        vertical = count == 2 and rng.random() < 0.3
        places = PLACES_ONE_ABOVE_THE_OTHER if vertical else PLACES[count]
        size = self.size
        image = background(size, rng, simple=self.nano)
        rows = size // self.grain
        coverage = numpy.zeros((count, rows, rows), numpy.float32)
        for index, one in enumerate(shown):
            one.place = places[index]
            image = self.cut_out(one.file).image if one.file else shape(one.kind, one.colour, rng)
            if one.file:
                if rng.random() < 0.5 and one.name != "clock":
                    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                image = image.rotate(rng.uniform(-14, 14), Image.Resampling.BICUBIC, expand=True)
                light = rng.uniform(0.82, 1.15)
                image = Image.merge("RGBA", [
                    *(channel.point(lambda value: min(255, int(value * light))) for channel in image.split()[:3]), image.getchannel("A")])
            longest = size * {1: rng.uniform(0.42, 0.85), 2: rng.uniform(0.38, 0.49), 3: rng.uniform(0.29, 0.345)}[count]
            # A thin thing is seen as well as a round one of the same area.
            slim = (min(image.size) / max(image.size)) ** 0.5
            longest = min(longest * (1.25 - 0.25 * slim), size * {1: 0.9, 2: 0.5, 3: 0.36}[count])
            scale = longest / max(image.size)
            width, height = (max(4, round(side * scale)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
            slot = size / count
            free = lambda length, extent: rng.uniform(0, max(0, length - extent))
            if count == 1:
                left, top = free(size, width), free(size, height)
            elif vertical:
                left, top = free(size, width), slot * index + free(slot, height)
            else:
                left, top = slot * index + free(slot, width), free(size, height)
            left, top = int(max(0, min(left, size - width))), int(max(0, min(top, size - height)))
            if not stands_out(image, image.crop((left, top, left + width, top + height))):
                return self(f"{seed}'", split, count)
            if rng.random() < 0.25:
                shadow = Image.new("L", (size, size))
                shadow.paste(image.getchannel("A").point(lambda alpha: alpha * 0.4), (left + size // 60, top + size // 60))
                shadow = shadow.filter(ImageFilter.GaussianBlur(size / 100))
                image.paste((0, 0, 0), (0, 0), shadow)
            image.paste(image, (left, top), image)
            alpha = numpy.zeros((size, size), numpy.float32)
            alpha[top:top + height, left:left + width] = numpy.asarray(image.getchannel("A"))[:size - top, :size - left]
            coverage[index] = alpha[:rows * self.grain, :rows * self.grain].reshape(rows, self.grain, rows, self.grain).mean((1, 3)) / 255
        return image, shown, coverage

    # What may be asked

    def caption(self, shown):
        parts = [with_article(one.name) + (f" {one.place}" if one.place else "") for one in shown]
        text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
        return sentence(text)

    def questions(self, shown, seed, split="train", every=False):
        """Questions and answers about a scene: (type, question, answer), one of each type that has one.

        - every: ask where each thing is, which is learned last.
        """
        rng = random.Random(f"questions {split} {seed}")
        count = len(shown)
        asked = [("caption", rng.choice(CAPTION_QUESTIONS), self.caption(shown))]
        if count > 1:
            one = rng.choice(shown)
            asked.append(("what", rng.choice([f"What is {one.place}?", f"What do you see {one.place}?"]), sentence(with_article(one.name))))
            for where in shown if every else [rng.choice(shown)]:
                asked.append(("where", f"Where {verb(where.name)} the {where.name}?", sentence(where.place)))
        asked.append(("how many", rng.choice(COUNT_QUESTIONS), NUMBERS[count] + "."))
        if rng.random() < 0.5:
            name = rng.choice(shown).name
            answer = "Yes."
        else:
            while True:
                # Among others what is there in another colour.
                name = self.pick(rng, False).name
                if self.shapes and rng.random() < 0.3:
                    kinds = [one.kind for one in shown if one.kind in SHAPES]
                    name = f"{rng.choice(list(COLOURS))} {rng.choice(kinds)}" if kinds else name
                if all(one.name != name for one in shown):
                    break
            answer = "No."
        asked.append(("is there", rng.choice([f"Is there {with_article(name)}?", f"Can you see {with_article(name)}?"]) if name not in PLURAL
                      else f"Are there {name}?", answer))
        coloured = [one for one in shown if one.colour and sum(other.kind == one.kind for other in shown) == 1]
        if coloured:
            one = rng.choice(coloured)
            asked.append(("colour", rng.choice([f"What colour {verb(one.kind)} the {one.kind}?", f"What color {verb(one.kind)} the {one.kind}?"]),
                          sentence(one.colour)))
        return asked


CAPTION_QUESTIONS = [
    "What is in this picture?", "What is in the picture?", "What do you see?", "Describe this image.", "Describe the image.",
    "Describe this image.", "What is in this image?", "What is this?", "What can you see in this picture?",
    "What is this an image of?",
]
COUNT_QUESTIONS = [
    "How many things are there?", "How many objects are there?", "How many things are in this picture?",
    "How many things do you see?",
]
