"""What Squint-nano and Squint-mini are made of, and how they are trained."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stage:
    """A part of the training. `trained` are the modules whose weights it changes; LoRA stands for factors beside the decoder's.

    - loss: "cells" (what is in each square of patches, without a decoder) or "answers" (the tokens of answers).
    - noise: up to which deviation noise is added to features; their own is 1 where they are whitened.
    - quantize_aware: from this share of the steps on, every second one is computed with weights rounded to int4.
    """
    name: str
    trained: tuple
    loss: str
    steps: int
    batch: int
    rate: float
    noise: float = 0.0
    quantize_aware: float = 1.0
    asked: int = 6  # the most questions about an image; with more, where each thing is
    cells: float = 0.0  # with "answers": the weight of the loss of "cells" beside theirs


@dataclass(frozen=True)
class Profile:
    name: str
    size: int  # of an image, pixels
    patch: int
    grain: int  # of the labels that say where things are, pixels
    shuffle: int  # squares of shuffle × shuffle patches are a token
    hidden: int  # the projector's inner width
    shapes: float  # the share of drawn shapes
    scenes: int  # in training
    held_out: int  # scenes of each held-out kind
    mean: tuple
    std: tuple
    frozen_encoder: bool
    stages: tuple = field(default_factory=tuple)


NANO = Profile(
    name="nano", size=112, patch=16, grain=8, shuffle=1, hidden=384, shapes=0.5, scenes=60_000, held_out=1000,
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), frozen_encoder=False,
    stages=(
        Stage("encoder", ("encoder", "projector", "head"), "cells", 1500, 96, 1e-3),
        Stage("projector", ("projector",), "answers", 100, 48, 1e-3),
        Stage("all", ("encoder", "projector", "decoder", "head"), "answers", 1700, 48, 1e-3, quantize_aware=0.6, cells=0.5),
        Stage("polish", ("encoder", "projector", "decoder", "head"), "answers", 400, 48, 5e-4, asked=8, quantize_aware=0.0, cells=0.5),
    ))

MINI = Profile(
    name="mini", size=224, patch=14, grain=14, shuffle=4, hidden=768, shapes=0.0, scenes=13_000, held_out=500,
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), frozen_encoder=True,
    stages=(
        Stage("warm", ("projector",), "cells", 1300, 96, 1e-3, noise=0.4),
        Stage("projector", ("projector",), "answers", 100, 16, 2e-4, noise=0.4, asked=3),
        Stage("lora", ("projector", "lora"), "answers", 500, 16, 5e-4, noise=0.4, asked=3),
        Stage("rounded", ("projector", "lora"), "answers", 200, 16, 6e-4, noise=0.4, asked=3, quantize_aware=0.0),
    ))

PROFILES = {profile.name: profile for profile in (NANO, MINI)}
