"""Draws the sample images of docs/samples: scenes that no model was trained on, three times (nano) or twice (mini) as large as models see them.

    python samples.py FOLDER
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


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (profile, times, chosen) in CHOSEN.items():
        maker = Scenes(profile.size * times, profile.grain * times, profile.shapes, name == "nano")
        for number, (split, seed) in enumerate(chosen, 1):
            image, shown, _ = maker(seed, split)
            path = folder / f"{name}-{number}.png"
            image.quantize(200).save(path, optimize=True)
            print(path, maker.caption(shown), f"({split})")


if __name__ == "__main__":
    main()
