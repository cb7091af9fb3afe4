"""Trains the projector by which Squint-mini hears, stage after stage, and writes it.

    python hear.py [--data FOLDER] [--minutes N] [--until words|answers|longer] [--hold-back SOURCE]
    python hear.py --export models/squint-mini/audio-projector.safetensors

Stage 1, "words", needs no decoder: the projector's rows shall be embeddings of the words' tokens, in their order, with commas between (CTC).
Stage 2, "answers", is LLaVA's stage 1: the loss is that of the answer's tokens behind the frozen decoder, with the adapter of the images in it.
Stage 3, "longer", is the same once more, with the rate from its start and without the voices of CHECKED: of its projectors the one is kept that answers best
about those.
A run goes on where it was interrupted. What was chosen (stack, noise, steps) was chosen by the sounds of a source that is held back, not by the test's.
"""

import argparse
import copy
import json
import math
import os
import pathlib
import signal
import time

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import model as parts
import sounds
from scenes import sentence

STACK, HIDDEN, WIDTH, SEED = 4, 1024, 384, 1
SOURCES = ["espeak", "flite", "hibari", "piper", "tuxpaint", "nothing"]
SHIPPED = pathlib.Path(__file__).parents[2] / "models/squint-mini"
# What is asked; the first one most often.
QUESTIONS = ["What is said?", "What do you hear?", "What does the voice say?", "Which words are spoken?"]
# Of each stage: steps, sounds a step, the rate, and what is done against learning voices by heart (`SoundProjector.forward`): the deviation of noise in
# whitened features, that of what is the same in all rows of a sound, and how many of the hidden values are left out.
STAGES = {"words": (2500, 64, 1.5e-3, (0.5, 0.4, 0.2)), "answers": (300, 16, 4e-4, (0.3, 0.2, 0.0)), "longer": (370, 16, 4e-4, (0.3, 0.2, 0.0))}
# The voices that stage 3 is checked by: so many sounds of each source, after so many steps each time.
CHECKED, CHECKS, CHECK_EVERY = {"espeak": ["f4", "m6", "Hugo", "belinda"], "flite": ["rms"]}, 64, 150


def answer(text):
    return sentence(text)


class SoundProjector(parts.Projector):
    """STACK neighbouring rows of the encoder side by side (the last ones filled up with zeros), and a linear layer, GELU, a linear layer."""

    def __init__(self, decoder_width):
        nn.Module.__init__(self)
        self.linear_1 = nn.Linear(WIDTH * STACK, HIDDEN)
        self.linear_2 = nn.Linear(HIDDEN, decoder_width)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("whitening", torch.eye(WIDTH))

    def squares(self, features):
        count, rows, width = features.shape
        return features.reshape(count, rows // STACK, STACK * width)

    def forward(self, features, noise=0.0, voice=0.0, dropout=0.0):
        """Rows of the decoder.

        - noise: the most that the deviation of each value's noise is.
        - voice: the same of noise that all rows of a sound have in common, as they have a voice in common.
        - dropout: how many of the hidden values are left out.
        """
        x = (features - self.mean) @ self.whitening
        count, _, width = x.shape
        if noise:
            x = x + torch.randn_like(x) * noise * torch.rand(count, 1, 1)
        if voice:
            x = x + torch.randn(count, 1, width) * voice * torch.rand(count, 1, 1)
        hidden = F.dropout(F.gelu(self.linear_1(self.squares(x))), dropout, training=dropout > 0)
        return self.linear_2(hidden)


def padded(rows):
    """Rows of several sounds as one tensor [sounds, longest, width] with zeros behind them, and how many projected rows each has."""
    counts = [-(-len(some) // STACK) for some in rows]
    out = torch.zeros(len(rows), max(counts) * STACK, rows[0].shape[-1])
    for index, some in enumerate(rows):
        out[index, :len(some)] = torch.as_tensor(some).float()
    return out, torch.tensor(counts)


class Sounds:
    """The features of all training sounds."""

    def __init__(self, out, sources=SOURCES):
        self.rows, self.spans, self.texts, self.sources, self.voices = [], [], [], [], []
        for source in sources:
            if not (sounds.folder(out) / f"features-{source}.npz").exists():
                print(f"no features of {source}", flush=True)
                continue
            rows, ends, said = sounds.read_features(source, out)
            self.spans += [(len(self.rows), start, end) for start, end in zip([0, *ends[:-1]], ends)]
            self.rows.append(rows)
            self.texts += [text for _, text in said]
            self.sources += [source] * len(said)
            self.voices += [sounds.speaker(voice) for voice, _ in said]
        self.lengths = numpy.array([end - start for _, start, end in self.spans])

    def __len__(self):
        return len(self.spans)

    def __getitem__(self, index):
        file, start, end = self.spans[index]
        return self.rows[file][start:end]

    def chosen(self, indices):
        """Some of the sounds."""
        one = copy.copy(self)
        for name in ("spans", "texts", "sources", "voices"):
            setattr(one, name, [getattr(self, name)[index] for index in indices])
        one.lengths = self.lengths[indices]
        return one

    def some(self, rng, count):
        """Sounds of about the same length, by chance."""
        first = rng.permutation(len(self))[:4 * count]
        first = first[numpy.argsort(self.lengths[first], kind="stable")]
        start = int(rng.integers(4)) * count
        return first[start:start + count]


class TokenHead(nn.Module):
    """How near the projector's rows are to the embeddings of the tokens that texts have, and to a comma's, where nothing is said."""

    def __init__(self, tokenizer, table, texts):
        super().__init__()
        self.tokens = {text: [] if text == sounds.NOTHING else tokenizer(" " + text, add_special_tokens=False).input_ids for text in set(texts)}
        known = sorted({token for tokens in self.tokens.values() for token in tokens})
        self.index = {token: number + 1 for number, token in enumerate(known)}
        comma = tokenizer(",", add_special_tokens=False).input_ids
        self.register_buffer("table", table[comma + known].float(), persistent=False)

    def loss(self, rows, counts, texts):
        scores = (20 * F.normalize(rows, dim=-1) @ F.normalize(self.table, dim=1).T).log_softmax(-1)
        targets = [[self.index[token] for token in self.tokens[text]] for text in texts]
        lengths = torch.tensor([len(target) for target in targets])
        flat = torch.tensor([token for target in targets for token in target])
        spelled = F.ctc_loss(scores.transpose(0, 1), flat, counts, lengths, zero_infinity=True, reduction="none").sum() / lengths.clamp(min=1).sum()
        # As long as those of words are, too.
        wanted = scores.detach().exp() @ self.table
        valid = torch.arange(rows.shape[1]) < counts[:, None]
        return spelled + 0.3 * (rows - wanted)[valid].square().sum(-1).mean() / self.table.square().sum(-1).mean()

    def read(self, rows, counts):
        """Tokens that the rows spell: the nearest of each row, each once, without commas."""
        best = (F.normalize(rows, dim=-1) @ F.normalize(self.table, dim=1).T).argmax(-1)
        known = [None, *self.index]
        found = []
        for some, count in zip(best.tolist(), counts.tolist()):
            some = some[:count]
            found.append([known[token] for token, before in zip(some, [0, *some]) if token and token != before])
        return found


def decoder_that_sees(dtype=torch.float32):
    """SmolLM2 with the adapter that Squint-mini's images use, in its matrices; and its tokenizer."""
    decoder, tokenizer = parts.smollm2()
    factors = load_file(SHIPPED / "adapter/adapter_model.safetensors")
    settings = json.loads((SHIPPED / "adapter/adapter_config.json").read_text())
    for name, down in factors.items():
        if name.endswith("lora_A.weight"):
            path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            up = factors[name.replace("lora_A", "lora_B")]
            decoder.get_submodule(path).weight.data += settings["lora_alpha"] / settings["r"] * up.float() @ down.float()
    return decoder.to(dtype).requires_grad_(False).eval(), tokenizer


class Listener:
    """The frozen decoder behind rows of sounds. What stands before the sound is the same each time: its keys and values are computed once."""

    def __init__(self, decoder, tokenizer):
        self.decoder, self.chat, self.tokenizer = decoder, parts.Chat(tokenizer), tokenizer
        self.embed = decoder.get_input_embeddings()
        with torch.no_grad():
            before = decoder.model(input_ids=torch.tensor([self.chat.before]), use_cache=True).past_key_values
        self.before = [(layer.keys, layer.values) for layer in before.layers]

    def loss(self, rows, counts, questions, answers):
        """The mean cross entropy of the answers' tokens."""
        texts = [self.chat.tokens(question, said) for question, said in zip(questions, answers)]
        past, counts = len(self.chat.before), counts.tolist()
        longest = max(count + len(ids) for count, (ids, _) in zip(counts, texts)) - 1
        inputs, targets = [], torch.full((len(texts), longest), -100)
        for index, (count, (ids, asking)) in enumerate(zip(counts, texts)):
            row = torch.cat([rows[index, :count].to(self.embed.weight.dtype), self.embed(torch.tensor(ids[:-1]))])
            inputs.append(F.pad(row, (0, 0, 0, longest - len(row))))
            targets[index, count + asking - 1:count + len(ids) - 1] = torch.tensor(ids[asking:])
        cache = transformers.DynamicCache()
        for index, (keys, values) in enumerate(self.before):
            cache.update(keys.expand(len(texts), -1, -1, -1), values.expand(len(texts), -1, -1, -1), index)
        # Padding stands behind, where no other row looks.
        mask = torch.ones(longest, past + longest, dtype=torch.bool).tril(past)[None, None].expand(len(texts), -1, -1, -1)
        hidden = self.decoder.model(inputs_embeds=torch.stack(inputs), past_key_values=cache, attention_mask=mask, use_cache=True,
                                    position_ids=past + torch.arange(longest)[None]).last_hidden_state
        chosen = targets >= 0
        return F.cross_entropy(self.decoder.lm_head(hidden[chosen]).float(), targets[chosen])

    def answers(self, rows, counts, question=QUESTIONS[0], most=24):
        """What greedy generation answers about each sound."""
        ids, asking = self.chat.tokens(question, "")
        before, behind = self.embed(torch.tensor(self.chat.before)), self.embed(torch.tensor(ids[:asking]))
        given = []
        with torch.inference_mode():
            for start in range(0, len(rows), 32):
                inputs = [torch.cat([before, some[:count].to(before.dtype), behind])
                          for some, count in zip(rows[start:start + 32], counts[start:start + 32].tolist())]
                longest = max(len(row) for row in inputs)
                mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in inputs])
                out = self.decoder.generate(
                    inputs_embeds=torch.stack([F.pad(row, (0, 0, longest - len(row), 0)) for row in inputs]), attention_mask=mask,
                    max_new_tokens=most, do_sample=False, pad_token_id=self.tokenizer.eos_token_id, eos_token_id=self.tokenizer.eos_token_id)
                given += [text.strip() for text in self.tokenizer.batch_decode(out, skip_special_tokens=True)]
        return given


class Training:
    def __init__(self, out, minutes, held_back=None):
        self.out, self.minutes = sounds.folder(out), minutes
        torch.manual_seed(SEED)
        self.sounds = Sounds(out, [source for source in SOURCES if source != held_back])
        self.held_back = Sounds(out, [held_back]) if held_back else None
        print(f"{len(self.sounds)} sounds", flush=True)
        self.decoder, self.tokenizer = decoder_that_sees(torch.bfloat16)
        self.projector = SoundProjector(self.decoder.config.hidden_size)
        self.head = TokenHead(self.tokenizer, self.decoder.get_input_embeddings().weight, self.sounds.texts)
        self.history, self.stopped = [], False
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self.stop)

    def stop(self, *_):
        self.stopped = True

    def file(self, name):
        return self.out / f"hear-{name}.pt"

    def save(self, name, **more):
        temporary = self.file(name).with_suffix(".part")
        torch.save({"projector": self.projector.state_dict(), "history": self.history, **more}, temporary)
        os.replace(temporary, self.file(name))

    def load(self, name):
        if not self.file(name).exists():
            return None
        saved = torch.load(self.file(name), weights_only=True)
        self.projector.load_state_dict(saved["projector"])
        self.history = saved["history"]
        return saved

    def run(self, until):
        for name in STAGES:
            if not self.load(name):
                if name == "words" and not self.file("words-partial").exists():
                    sample = numpy.random.default_rng(SEED).permutation(len(self.sounds))[:500]
                    self.projector.whiten(torch.cat([torch.as_tensor(self.sounds[index]).float() for index in sample]))
                self.stage(name)
            if self.stopped or name == until:
                return

    def stage(self, name):
        steps, count, rate, noise = STAGES[name]
        optimizer = torch.optim.AdamW(self.projector.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
        first, spent = 0, 0.0
        if saved := self.load(f"{name}-partial"):
            optimizer.load_state_dict(saved["optimizer"])
            first, spent = saved["step"], saved["seconds"]
        listener = None if name == "words" else Listener(self.decoder, self.tokenizer)
        if name == "longer":
            self.choose(listener, 0, saved)
        began = shown = kept = time.monotonic()
        taken = first
        for step in range(first, steps):
            seconds = spent + time.monotonic() - began
            # Where the time is limited, the rate falls with it.
            done = max(step / steps, seconds / (60 * self.minutes) if self.minutes else 0)
            if done >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, (step + 1) / 20) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
            loss = self.loss(name, listener, step, count, noise)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.projector.parameters(), 1.0)
            optimizer.step()
            self.history.append((name, loss.item()))
            taken = step + 1
            if name == "longer" and taken % CHECK_EVERY == 0:
                self.choose(listener, taken)
            now = time.monotonic()
            if now - shown > 20:
                shown = now
                recent = [value for stage, value in self.history[-50:] if stage == name]
                print(f"{name} step {taken}/{steps}  loss {numpy.mean(recent):.4f}  {(now - began) / (taken - first):.2f} s a step", flush=True)
            if now - kept > 60 or self.stopped:
                kept = now
                self.save(f"{name}-partial", optimizer=optimizer.state_dict(), step=taken, seconds=spent + now - began)
            if self.stopped:
                print("interrupted; start again to go on", flush=True)
                return
        if name == "longer":
            self.choose(listener, taken)
            history = self.history
            best = self.load("longer-best")
            self.history = history
            print(f"kept that after {best['step']} steps", flush=True)
        self.save(name, steps=taken, seconds=spent + time.monotonic() - began)
        for other in ("partial", "best"):
            self.file(f"{name}-{other}").unlink(missing_ok=True)
        print(f"{name}: done after {taken} steps", flush=True)
        if self.held_back:
            self.check(name)

    def choose(self, listener, step, going_on=False):
        """Keeps the projector if none answered more of the checked voices' sounds right. The first time, takes their sounds out of the training."""
        if step == 0:
            checked = {f"{source}:{name}" for source, names in CHECKED.items() for name in names}
            held = [index for index, voice in enumerate(self.sounds.voices) if voice in checked]
            order = numpy.random.default_rng(SEED).permutation(held).tolist()
            self.checked = self.sounds.chosen([index for source in CHECKED for index in
                                               [index for index in order if self.sounds.sources[index] == source][:CHECKS]])
            self.sounds = self.sounds.chosen(sorted({*range(len(self.sounds))} - {*held}))
            print(f"{len(self.sounds)} sounds, and {len(held)} of voices that are held back, of which {len(self.checked)} are checked", flush=True)
            if going_on:
                return
        with torch.inference_mode():
            features, counts = padded([self.checked[index] for index in range(len(self.checked))])
            rows = self.projector(features)
            given = listener.answers(rows, counts)
            loss = listener.loss(rows, counts, [QUESTIONS[0]] * len(counts), [answer(text) for text in self.checked.texts]).item()
        right = [one == answer(text) for one, text in zip(given, self.checked.texts)]
        print(f"longer step {step}: {sum(right)} of {len(right)} right, loss {loss:.4f};",
              *(f"{source} {sum(one for one, other in zip(right, self.checked.sources) if other == source)}" for source in CHECKED), flush=True)
        best = torch.load(self.file("longer-best"), weights_only=True) if self.file("longer-best").exists() else None
        if best is None or (sum(right), -loss) > (best["right"], -best["loss"]):
            self.save("longer-best", step=step, right=sum(right), loss=loss)

    def check(self, name):
        """How many of the held back sounds are right: as the nearest words, and in the decoder's answers."""
        chosen = numpy.random.default_rng(SEED).permutation(len(self.held_back))[:400]
        texts = [self.held_back.texts[index] for index in chosen]
        with torch.inference_mode():
            features, counts = padded([self.held_back[index] for index in chosen])
            rows = self.projector(features)
            spelled = [self.tokenizer.decode(tokens).strip() for tokens in self.head.read(rows, counts)]
            print(f"{name}: held back, spelled {numpy.mean([one == text for one, text in zip(spelled, texts)]):.3f}", flush=True)
            given = Listener(self.decoder, self.tokenizer).answers(rows[:100], counts[:100])
            print(f"{name}: held back, answered {numpy.mean([one == answer(text) for one, text in zip(given, texts)]):.3f}", flush=True)
        for said in list(zip(texts, spelled, given))[:12]:
            print(*said, sep=" | ")

    def loss(self, name, listener, step, count, noise):
        rng = numpy.random.default_rng([SEED, len(name), step])
        torch.manual_seed(int(rng.integers(1 << 31)))
        chosen = self.sounds.some(rng, count)
        # Without the first few rows, so that a sound begins at any row of a stack.
        features, counts = padded([self.sounds[index][int(rng.integers(STACK)):] for index in chosen])
        texts = [self.sounds.texts[index] for index in chosen]
        with torch.autocast("cpu", torch.bfloat16):
            rows = self.projector(features, *noise).float()
        if listener is None:
            return self.head.loss(rows, counts, texts)
        asked = [QUESTIONS[0] if rng.random() < 0.6 else QUESTIONS[int(rng.integers(len(QUESTIONS)))] for _ in texts]
        return listener.loss(rows, counts, asked, [answer(text) for text in texts])


def trained(out):
    """The projector after the last stage that is done, and which that is; or the one that comes with Squint."""
    projector = SoundProjector(576)
    for name in reversed(STAGES):
        path = sounds.folder(out) / f"hear-{name}.pt"
        if path.exists():
            projector.load_state_dict(torch.load(path, weights_only=True)["projector"])
            return projector.eval(), f"after the stage {name}"
    projector.load_state_dict(load_file(SHIPPED / "audio-projector.safetensors"), strict=False)
    return projector.float().eval(), "as it comes with Squint"


def export(projector, path):
    layers = {name: value.detach().half().contiguous() for name, value in projector.folded().items()}
    save_file(layers, path, metadata={"activation": "gelu", "stack": str(STACK)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="where sounds.py wrote; default: .tools/train")
    parser.add_argument("--minutes", type=float, help="the most that a stage may take")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--until", choices=STAGES)
    parser.add_argument("--hold-back", choices=SOURCES, help="do not train on these sounds, and say after each stage how many of them are heard")
    parser.add_argument("--export", type=pathlib.Path, help="write the trained projector there, and train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.export:
        projector, stage = trained(arguments.data)
        export(projector, arguments.export)
        print(f"{arguments.export}: {stage}")
    else:
        Training(arguments.data, arguments.minutes, arguments.hold_back).run(arguments.until)


if __name__ == "__main__":
    main()
