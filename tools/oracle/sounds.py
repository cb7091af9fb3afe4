"""How far the log-mel frames of `squint embed --stage pixels` are from those of librosa and transformers, for many sounds.

    python tools/oracle/sounds.py make FOLDER
    python tools/oracle/sounds.py compare MODEL.squint FILE… [--padding 30|300|none] [--mels 128] [--least 0] [--most 0]

`make` fills FOLDER with sounds of all rates, channels and formats: speech (espeak-ng), music (synthesized), and what is hard:
silence, clicks, a square of full scale; with sox and ffmpeg.

`compare` loads each file with librosa.load(sr=16000), and takes WhisperFeatureExtractor's features: padded with zeros to so many
seconds, or not at all. With --padding 30 frames of padding count, too. Where PyTorch is installed the extractor uses it, else NumPy. A shorter
sound has zeros up to --least samples, one of more than --most is cut. --program says what makes the numbers instead: a command with {model},
{file} and {out}, which writes .npy, or f32 alone. Needs librosa, soxr, soundfile, audioread (M4A, and videos, through ffmpeg) and transformers.
Prints a line for each file, and the worst; fails where a difference is above --tolerance.
"""

import argparse
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile
import warnings

import numpy

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.", "Ask her to bring these things with her from the store.",
    "Six spoons of fresh snow peas, five thick slabs of blue cheese.", "What is said?", "Nine. Eight. Seven!",
]
RATES = [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000]


def speech(folder, seed):
    import soundfile
    path = folder / f"voice{seed}.wav"
    voice = ["en-us", "en-gb-scotland", "de", "fr-fr", "es", "en-gb"][seed % 6] + ["+m3", "+f2", "+m7", "+f4"][seed % 4]
    subprocess.run(
        ["espeak-ng", "-v", voice, "-s", str(130 + 20 * seed), "-w", str(path), SENTENCES[seed % len(SENTENCES)]],
        check=True, capture_output=True)
    samples, rate = soundfile.read(path)
    path.unlink()
    return samples, rate


def music(seed, rate, seconds):
    """Chords of plucked strings, with a beat of noise."""
    generator = numpy.random.default_rng(seed)
    time = numpy.arange(int(rate * seconds)) / rate
    sound = numpy.zeros((len(time), 2))
    for start in numpy.arange(0, seconds, 0.25):
        after = numpy.clip(time - start, 0, None)
        for _ in range(3):
            pitch = 110 * 2 ** (generator.integers(0, 36) / 12)
            place = generator.random()
            for overtone in range(1, 12):
                if pitch * overtone >= rate / 2:
                    break
                wave = numpy.sin(2 * numpy.pi * pitch * overtone * after) * numpy.exp(-after * (3 + overtone)) / overtone
                sound += 0.1 * numpy.outer(wave * (time >= start), [place, 1 - place])
        noise = generator.normal(size=len(time)) * numpy.exp(-after * 60) * (time >= start)
        sound += 0.05 * noise[:, None]
    return sound / max(1, numpy.abs(sound).max())


def hard(rate):
    time = numpy.arange(2 * rate) / rate
    click = numpy.zeros(2 * rate)
    click[[rate // 3, rate, 2 * rate - 1]] = [1, -1, 1]
    return {
        "silence": 0 * time, "click": click, "square": numpy.where(numpy.sin(2 * numpy.pi * 220.7 * time) >= 0, 1.0, -1.0),
        "tone": 0.99 * numpy.sin(2 * numpy.pi * 1000.3 * time), "chirp": numpy.sin(2 * numpy.pi * (20 + 900 * time) * time),
        "offset": 0 * time + 0.7,
        "noise": numpy.random.default_rng(rate).uniform(-1, 1, len(time)),
    }


def make(folder):
    import soundfile
    folder.mkdir(parents=True, exist_ok=True)

    def sox(source, target, *options, effects=()):
        subprocess.run(["sox", "-G", "-V1", str(source), *options, str(target), *effects], check=True)

    def ffmpeg(source, target, *options):
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(source), *options, str(target)], check=True)

    for index, rate in enumerate(RATES):
        samples, own = speech(folder, index)
        raw = folder / "raw.wav"
        soundfile.write(raw, samples, own, subtype="PCM_16")
        sox(raw, folder / f"speech-{rate}.wav", "-r", str(rate), "-c", str(1 + index % 2))
        if rate <= 96000:
            sox(raw, folder / f"speech-{rate}.flac", "-r", str(rate))
        if rate in (8000, 11025, 16000, 22050, 44100, 48000):
            ffmpeg(raw, folder / f"speech-{rate}.mp3", "-ar", str(rate), "-ac", str(1 + index % 2))
            sox(raw, folder / f"speech-{rate}.ogg", "-r", str(rate))
        soundfile.write(folder / f"music-{rate}.flac", music(index, rate, 2.5), rate, subtype="PCM_24" if index % 2 else "PCM_16")
        for name, sound in hard(rate).items():
            if random.Random(f"{name}{rate}").random() < 0.35:
                soundfile.write(folder / f"{name}-{rate}.wav", sound, rate, subtype=["PCM_16", "PCM_24", "FLOAT"][index % 3])
        raw.unlink()
    tune = folder / "music-44100.flac"
    for target, *options in [
        ("music.aiff",), ("music-u8.wav", "-b", "8", "-e", "unsigned"), ("music-ulaw.wav", "-e", "u-law"), ("music.au",),
        ("music-adpcm.wav", "-e", "ms-adpcm"), ("music-f64.wav", "-e", "float", "-b", "64"), ("music.caf",), ("music.w64",),
        ("music-six.wav", "-c", "6"), ("music-1000.wav", "-r", "1000"), ("music-7777.wav", "-r", "7777"),
        ("music-44101.wav", "-r", "44101"), ("music-384000.wav", "-r", "384000"), ("music-768000.wav", "-r", "768000"),
    ]:
        sox(tune, folder / target, *options)
    for target, *options in [
        ("music.opus", "-c:a", "libopus"), ("music.m4a", "-c:a", "aac"), ("music.wma", "-c:a", "wmav2"),
        ("music-vbr.mp3", "-q:a", "4"), ("music-headless.mp3", "-write_xing", "0", "-b:a", "96k"), ("music.ac3",),
        ("music-alac.m4a", "-c:a", "alac"), ("music.webm", "-c:a", "libopus"),
    ]:
        ffmpeg(tune, folder / target, *options)
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=5", "-i", str(folder / "speech-44100.flac"),
         "-shortest", str(folder / "video.mp4")], check=True)
    # More than 30 seconds.
    same = [folder / "speech-16000.flac", folder / "music-16000.wav"]
    sox(folder / "music-16000.flac", same[1], "-c", "1", "-b", "16")
    sox(same[0], folder / "long.flac", *[str(path) for path in same * 12])
    for milliseconds in (11, 13, 40, 300):
        sox(folder / "speech-16000.wav", folder / f"short-{milliseconds}.wav", effects=["trim", "0.5", str(milliseconds / 1000)])


def reference(path, arguments):
    import librosa
    from transformers import WhisperFeatureExtractor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples, _ = librosa.load(path, sr=16000)
    if arguments.most:
        samples = samples[:arguments.most]
    if len(samples) < arguments.least:
        samples = numpy.pad(samples, (0, arguments.least - len(samples)))
    seconds = 30 if arguments.padding == "none" else int(arguments.padding)
    extractor = WhisperFeatureExtractor(feature_size=arguments.mels, chunk_length=seconds)
    if arguments.padding == "none" and len(samples) <= 200:
        # PyTorch's reflection takes no signal that is shorter than itself.
        return extractor._np_extract_fbank_features(samples[None], "cpu")[0].T
    options = {"padding": True, "truncation": False} if arguments.padding == "none" else {}
    features = extractor(samples, sampling_rate=16000, return_attention_mask=True, return_tensors="np", **options)
    frames = features["input_features"][0].T
    return frames if arguments.padding == "30" else frames[features["attention_mask"][0].astype(bool)]


def ours(path, arguments, out):
    command = [word.format(model=arguments.model, file=path, out=out) for word in shlex.split(arguments.program)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        return (run.stderr or run.stdout).strip()
    numbers = out.read_bytes()
    numbers = numpy.load(out) if numbers[:6] == b"\x93NUMPY" else numpy.frombuffer(numbers, "<f4")
    return numbers.reshape(-1, arguments.mels)


def compare(arguments):
    worst, failures = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "numbers.npy"
        for path in arguments.files:
            found = ours(path, arguments, out)
            expected = reference(path, arguments)
            if isinstance(found, str):
                print(f"{path}: {found}")
                failures += 1
            elif found.shape != expected.shape:
                print(f"{path}: {found.shape}, expected {expected.shape}")
                failures += 1
            else:
                difference = float(numpy.abs(found - expected).max())
                worst = max(worst, difference)
                failures += not difference <= arguments.tolerance
                print(f"{path}: {len(found)} frames, {difference:.2e}")
            sys.stdout.flush()
    print(f"{len(arguments.files)} files, the worst {worst:.2e}; {failures} above {arguments.tolerance:.0e} or failed")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("folder", type=pathlib.Path)
    command = commands.add_parser("compare")
    command.add_argument("model")
    command.add_argument("files", nargs="+", type=pathlib.Path)
    command.add_argument("--padding", choices=["30", "300", "none"], default="300")
    command.add_argument("--mels", type=int, default=128)
    command.add_argument("--least", type=int, default=0)
    command.add_argument("--most", type=int, default=0)
    command.add_argument("--tolerance", type=float, default=1e-4)
    command.add_argument(
        "--program", default=".build/release/squint embed {model} --audio {file} --stage pixels -o {out}")
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.folder)
        return 0
    return compare(arguments)


if __name__ == "__main__":
    sys.exit(main())
