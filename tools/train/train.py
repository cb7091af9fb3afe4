"""Trains Squint-nano or Squint-mini, stage after stage.

    python train.py nano|mini [--data FOLDER] [--threads N] [--until STAGE]

Each step's images and questions follow from the seed and the step's number alone, and the weights and the optimizer's state are saved every
minute, so that a run which was interrupted at any moment goes on as if it had not been. Ctrl-C saves, too. Prints the trainable parameters
of each stage and, in between, its loss; draws the curves into losses.png. Uses a CUDA device where there is one.
"""

import argparse
import contextlib
import json
import math
import os
import random
import signal
import time

import numpy
import torch
from torch.nn import functional as F

import data
import model as parts
from profiles import PROFILES
from scenes import COLOURS, PLACES, PLACES_ONE_ABOVE_THE_OTHER, Scenes, Shown

SEED = 20240417


class TrainingScenes:
    """The files that data.py made, as one array of scenes."""

    def __init__(self, profile, out, split="train"):
        folder = data.folder(profile, out)
        files = sorted(folder.glob(f"{split}-*.npz"))
        if profile.frozen_encoder:
            files = [file for file in files if file.with_suffix(".features.npy").exists()]
        assert files, f"{folder}: no scenes; run data.py {profile.name} first"
        loaded = [numpy.load(file) for file in files]
        self.shown = [scene for file in loaded for scene in json.loads(str(file["shown"]))]
        self.patches = numpy.concatenate([file["patches"] for file in loaded])
        self.features = self.images = None
        if profile.frozen_encoder:
            self.features = [numpy.load(file.with_suffix(".features.npy"), mmap_mode="r") for file in files]
        else:
            self.images = numpy.concatenate([file["pictures"] for file in loaded])

    def __len__(self):
        return len(self.shown)

    def image_features(self, indices):
        return torch.from_numpy(numpy.stack([self.features[index // data.SHARD][index % data.SHARD] for index in indices]))

    def things(self, index):
        return [Shown(name, kind, colour, "", place) for name, kind, colour, place in self.shown[index]]


class Trainer:
    def __init__(self, profile, arguments):
        self.profile, self.out = profile, data.folder(profile, arguments.data)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.scenes = TrainingScenes(profile, arguments.data)
        self.maker = Scenes(profile.size, profile.grain, profile.shapes, profile.name == "nano")
        torch.manual_seed(SEED)
        self.model = assemble(profile, self.maker)
        self.chat = parts.Chat(self.model.tokenizer)
        self.head = Head(self.model, self.maker)
        self.model.head = self.head
        self.model.to(self.device)
        self.history = []
        self.interrupted = False
        signal.signal(signal.SIGINT, self.interrupt)
        signal.signal(signal.SIGTERM, self.interrupt)

    def interrupt(self, *_):
        self.interrupted = True

    # Checkpoints

    def state(self):
        """All weights that some stage trains."""
        frozen = ("decoder.", "encoder.") if self.profile.frozen_encoder else ()
        return {name: value for name, value in self.model.state_dict().items()
                if not name.startswith(frozen) or "lora_" in name}

    def save(self, name, **more):
        path = self.out / f"{name}.pt"
        data.write(path, lambda file: torch.save({"model": self.state(), "history": self.history, **more}, file))

    def load(self, name):
        path = self.out / f"{name}.pt"
        if not path.exists():
            return None
        saved = torch.load(path, weights_only=True, map_location=self.device)
        missing, unexpected = self.model.load_state_dict(saved["model"], strict=False)
        assert not unexpected, unexpected
        self.history = saved["history"]
        return saved

    # Training

    def run(self, until):
        for number, stage in enumerate(self.profile.stages, 1):
            if not self.load(f"{number}-{stage.name}"):
                if number > 1:
                    self.load(f"{number - 1}-{self.profile.stages[number - 2].name}")
                if not self.train(number, stage):
                    return False
            if stage.name == until:
                break
        return True

    def parameters(self, stage):
        """What the stage trains; everything else is frozen."""
        chosen = []
        for name, parameter in self.model.named_parameters():
            module = "lora" if "lora_" in name else name.split(".")[0]
            parameter.requires_grad_(module in stage.trained and parameter.is_floating_point()
                                     and not (module == "decoder" and self.profile.frozen_encoder))
            if parameter.requires_grad:
                chosen.append(parameter)
        return chosen

    def train(self, number, stage):
        parameters = self.parameters(stage)
        print(f"stage {number}, {stage.name}: trains {sum(p.numel() for p in parameters):,} parameters "
              f"({', '.join(stage.trained)}), {stage.steps} steps of {stage.batch} images", flush=True)
        optimizers = self.optimizers(stage)
        first = 0
        partial = f"{number}-{stage.name}-partial"
        if saved := self.load(partial):
            for optimizer, state in zip(optimizers, saved["optimizers"]):
                optimizer.load_state_dict(state)
            first = saved["step"]
            print(f"  goes on at step {first}", flush=True)
        elif number == 1:
            self.whiten()
        self.model.train()
        began = shown = saved_at = time.monotonic()
        seconds = saved["seconds"] if first else 0.0
        for step in range(first, stage.steps):
            warm = min(1, (step + 1) / 100)
            rate = stage.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / stage.steps)))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * (3 if isinstance(optimizer, torch.optim.Muon) else 1)
            quantized = step >= stage.quantize_aware * stage.steps and step % 2
            with parts.QuantizeAware(self.model) if quantized else contextlib.nullcontext():
                with torch.autocast(self.device, torch.bfloat16):
                    loss = self.loss(stage, number, step)
                self.model.zero_grad(set_to_none=True)
                loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer in optimizers:
                optimizer.step()
            self.history.append((stage.name, loss.item()))
            now = time.monotonic()
            if now - shown > 20 or step + 1 == stage.steps:
                shown = now
                recent = [loss for name, loss in self.history[-100:] if name == stage.name]
                print(f"  {stage.name} step {step + 1:5}/{stage.steps}  loss {numpy.mean(recent):.4f}  "
                      f"{(now - began) / (step + 1 - first):.2f} s a step", flush=True)
            if now - saved_at > 60 or self.interrupted:
                saved_at = now
                self.save(partial, optimizers=[optimizer.state_dict() for optimizer in optimizers], step=step + 1, seconds=seconds + now - began)
            if self.interrupted:
                print("interrupted; start again to go on", flush=True)
                return False
        self.save(f"{number}-{stage.name}", seconds=seconds + time.monotonic() - began)
        (self.out / f"{partial}.pt").unlink(missing_ok=True)
        self.draw()
        return True

    def optimizers(self, stage):
        """Muon for the matrices inside layers that begin at random, AdamW for everything else."""
        chosen = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        inner = [] if self.profile.frozen_encoder else [p for name, p in chosen if ".layers." in name and p.ndim == 2]
        others = [p for _, p in chosen if not any(p is other for other in inner)]
        groups = [{"params": [p for p in others if p.ndim > 1], "weight_decay": 0.02},
                  {"params": [p for p in others if p.ndim == 1], "weight_decay": 0}]
        optimizers = [torch.optim.AdamW(groups, lr=stage.rate, betas=(0.9, 0.98))]
        if inner:
            optimizers.append(torch.optim.Muon(inner, lr=3 * stage.rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"))
        return optimizers

    def whiten(self):
        """What is trained first gets inputs that vary alike in all directions: the projector of a frozen encoder, the patches of another."""
        sample = range(0, len(self.scenes), max(1, len(self.scenes) // 300))
        if self.profile.frozen_encoder:
            self.model.projector.whiten(self.scenes.image_features(sample).flatten(0, 1).float().to(self.device))
        else:
            parts.whiten_patches(self.model.encoder, parts.normalized(torch.from_numpy(self.scenes.images[sample]), self.profile))

    def loss(self, stage, number, step):
        rng = numpy.random.default_rng((SEED, number, step))
        indices = [int(rng.integers(len(self.scenes))) for _ in range(stage.batch)]
        # In a mirrored scene the same things are in mirrored cells; but left is right.
        mirrored = stage.loss == "cells" and not self.profile.frozen_encoder and step % 2 == 1
        if self.profile.frozen_encoder:
            features = self.scenes.image_features(indices).to(self.device).float()
        else:
            images = self.scenes.images[indices]
            if mirrored:
                images = images[:, :, ::-1].copy()
            pixels = parts.normalized(torch.from_numpy(images), self.profile).to(self.device)
            with torch.set_grad_enabled("encoder" in stage.trained):
                features = self.model.features(pixels)
        torch.manual_seed(int(rng.integers(1 << 31)))
        seen = self.model.projector(features, stage.noise)
        if stage.loss == "cells" or stage.cells:
            cells = self.head.loss(seen, self.scenes, indices, self.profile, mirrored)
            if stage.loss == "cells":
                return cells
        asked = []
        for index in indices:
            questions = self.maker.questions(self.scenes.things(index), int(rng.integers(1 << 40)), every=stage.asked > 6)
            # Always the caption, which says most, and others by chance.
            others = rng.permutation(len(questions) - 1)[:stage.asked - 1] + 1
            asked.append([questions[0], *(questions[other] for other in sorted(others))])
        batch = parts.Batch(self.chat, asked, seen.shape[1]).to(self.device)
        answers = F.cross_entropy(self.model.answers(seen, batch).float(), batch.targets)
        return answers + stage.cells * cells if stage.cells else answers

    def draw(self):
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
        stages = [stage.name for stage in self.profile.stages if any(name == stage.name for name, _ in self.history)]
        figure, axes = pyplot.subplots(1, len(stages), figsize=(4 * len(stages), 3), squeeze=False)
        for axis, name in zip(axes[0], stages):
            losses = numpy.array([loss for stage, loss in self.history if stage == name])
            width = max(1, len(losses) // 100)
            smooth = losses[:len(losses) // width * width].reshape(-1, width).mean(1)
            axis.plot(numpy.arange(len(smooth)) * width, smooth)
            axis.set(title=f"{self.profile.name}: {name}", xlabel="step", ylabel="loss", yscale="log")
            axis.grid(alpha=0.3)
        figure.tight_layout()
        figure.savefig(self.out / "losses.png", dpi=100)


class Head(torch.nn.Module):
    """What is in each square of patches: for nano a linear layer to kinds and colours; for mini, whose decoder knows words, how near
    the row is to the embedding of the name, so that stage 1 begins with rows that already are like words."""

    def __init__(self, model, maker):
        super().__init__()
        self.kinds = {kind: index + 1 for index, kind in enumerate(maker.kinds)}
        self.colours = {colour: index + 1 for index, colour in enumerate(COLOURS)}
        width = model.decoder.config.hidden_size
        if model.profile.frozen_encoder:
            table = model.decoder.get_input_embeddings().weight.detach()
            names = [",", *(" " + kind for kind in self.kinds)]  # a comma where nothing is
            rows = [table[model.tokenizer(name, add_special_tokens=False).input_ids].mean(0) for name in names]
            self.register_buffer("names", torch.stack(rows).float(), persistent=False)
        else:
            self.names = None
            self.kind = torch.nn.Linear(width, 1 + len(self.kinds))
            self.colour = torch.nn.Linear(width, 1 + len(self.colours))

    def loss(self, seen, scenes, indices, profile, mirrored=False):
        s = profile.shuffle * profile.patch // profile.grain
        patches = torch.from_numpy(scenes.patches[indices].astype(numpy.int64)).to(seen.device)
        if mirrored:
            patches = patches.flip(2)
        rows = patches.shape[1] // s
        cells = patches.reshape(-1, rows, s, rows, s).transpose(2, 3).reshape(len(indices), rows * rows, s * s)
        # [images, cells, 1 + most things]: the share of each thing; of nothing, what is left of a quarter.
        shares = F.one_hot(cells, 4).float().mean(2)
        shares[..., 0] = (0.25 - shares[..., 1:].sum(-1)).clamp(min=0)
        shares = shares / shares.sum(-1, keepdim=True)
        seen = seen.float()

        def wanted(table, field):
            of_thing = torch.zeros(len(indices), 4, 1 + len(table), device=seen.device)
            of_thing[:, 0, 0] = 1
            for row, index in enumerate(indices):
                for thing, one in enumerate(scenes.things(index)):
                    of_thing[row, 1 + thing, table.get(getattr(one, field), 0)] = 1
            return shares @ of_thing

        kinds = wanted(self.kinds, "kind")
        if self.names is None:
            entropy = lambda logits, target: -(F.log_softmax(logits, -1) * target).sum(-1).mean()
            return entropy(self.kind(seen), kinds) + 0.5 * entropy(self.colour(seen), wanted(self.colours, "colour"))
        names = F.normalize(self.names, dim=1)
        logits = 20 * F.normalize(seen, dim=-1) @ names.T
        apart = -(F.log_softmax(logits, -1) * kinds).sum(-1).mean()
        # As long as words are, too.
        target = kinds @ self.names
        return apart + 0.3 * (seen - target).square().sum(-1).mean() / self.names.square().sum(-1).mean()


def assemble(profile, maker):
    """The model of a profile before training."""
    if profile.frozen_encoder:
        decoder, tokenizer = parts.smollm2()
        decoder.to(torch.bfloat16).requires_grad_(False)
        parts.add_lora(decoder)
        # Features are computed beforehand: the encoder is not needed.
        return parts.VisionLanguageModel(profile, None, decoder, tokenizer)
    texts = []
    for seed in range(4000):
        count = 1 + seed % 3
        shown = [maker.pick(random.Random(f"{seed} {index}"), False) for index in range(count)]
        places = PLACES[count] if count != 2 or seed % 2 == 0 else PLACES_ONE_ABOVE_THE_OTHER
        for one, place in zip(shown, places):
            one.place = place
        texts += [text for _, question, answer in maker.questions(shown, seed) for text in (question, answer)]
    tokenizer = parts.small_tokenizer(texts)
    return parts.VisionLanguageModel(profile, parts.small_encoder(profile), parts.small_decoder(tokenizer), tokenizer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=PROFILES)
    parser.add_argument("--data", help="where data.py wrote; default: .tools/train")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--until", help="end after this stage")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    trainer = Trainer(PROFILES[arguments.profile], arguments)
    if trainer.run(arguments.until):
        trainer.draw()
        print("trained; export.py makes what squint-convert takes", flush=True)


if __name__ == "__main__":
    main()
