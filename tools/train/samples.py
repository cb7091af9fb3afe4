"""Makes the samples of docs/samples: scenes that no model was trained on, three times (nano) or twice (mini) as large as models see them;
and sounds of voices that Squint-mini was not trained on, from the speech of the test (sounds.py speech test).

    python samples.py FOLDER [--sounds]
"""

import pathlib
import sys

from profiles import MINI, NANO
from scenes import Scenes

# Of each model: which scenes, by kind and seed. The first ones that there are, not the ones answered best.
CHOSEN = {
    "nano": (NANO, 3, [("held out", 3), ("held out", 4), ("held out", 5), ("held out", 6), ("unseen", 2)]),
    "mini": (MINI, 2, [("held out", 0), ("held out", 1), ("held out", 2), ("unseen", 0), ("unseen", 1)]),
}


# Of each of these groups of the test the first sound.
SOUNDS = ["tuxpaint", "kokoro", "festival", "espeak", "phrases"]


def write_sounds(folder):
    import numpy
    import soundfile
    import sounds
    spoken = sounds.read_speech("test", None)
    for number, group in enumerate(SOUNDS, 1):
        samples, voice, text = next(one for one in spoken if sounds.group(*one[1:]) == group)
        path = folder / f"mini-{number}.ogg"
        soundfile.write(path, numpy.pad(samples, (sounds.RATE // 10, sounds.RATE // 5)), sounds.RATE, format="OGG", subtype="VORBIS")
        print(path, text, f"({voice})")


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    if "--sounds" in sys.argv:
        return write_sounds(folder)
    for name, (profile, times, chosen) in CHOSEN.items():
        maker = Scenes(profile.size * times, profile.grain * times, profile.shapes, name == "nano")
        for number, (split, seed) in enumerate(chosen, 1):
            image, shown, _ = maker(seed, split)
            path = folder / f"{name}-{number}.png"
            image.quantize(200).save(path, optimize=True)
            print(path, maker.caption(shown), f"({split})")


if __name__ == "__main__":
    main()
