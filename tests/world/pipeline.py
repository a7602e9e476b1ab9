"""The parts of the tiny Stable Diffusion 3 pipeline, untrained, and their assembly."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from tests.world.scenes import vocabulary

SEQUENCE_LENGTH = 16
"""Tokens per text encoder."""

CLIP_WIDTH = 64
TEXT_WIDTH = 2 * CLIP_WIDTH
WIDTH = 160
SHIFT = 1.5
"""Of the scheduler's timesteps at sampling."""


def clip_tokenizer() -> CLIPTokenizer:
    """A byte-level BPE tokenizer for which every word of the world is one token."""
    merges = byte_pair_merges(vocabulary())
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys(
        [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    )
    tokens.update(dict.fromkeys(("<|startoftext|>", "<|endoftext|>")))
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=SEQUENCE_LENGTH,
    )


def byte_pair_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Merges that make one token of every lower-case ASCII word: the most frequent pair first, ties by the pair itself.

    The tokenizers library breaks ties by the order of its hash table, so that two processes number tokens differently.
    """
    spelled = [(*word[:-1], word[-1] + "</w>") for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for word in spelled for pair in pairwise(word)):
        first, second = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append((first, second))
        spelled = [_merged(word, first, second) for word in spelled]
    return merges


def t5_tokenizer() -> T5TokenizerFast:
    """A unigram tokenizer of the world's words, with single characters for the rest."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,-'\"!?:;()"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -6.0)]
    pieces += [("▁" + word, -2.0) for word in vocabulary()]
    pieces += [(letter, -8.0) for letter in letters]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=SEQUENCE_LENGTH)


def build_transformer() -> SD3Transformer2DModel:
    """An untrained transformer over [N, 16, 16, 16] latents, initialised as DiT's adaLN-Zero."""
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=WIDTH // 32,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    for name, module in transformer.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        nn.init.zeros_(module.bias)
        if name == "proj_out" or (".norm1" in name or name.startswith("norm_out")):
            nn.init.zeros_(module.weight)
        elif name.startswith("time_text_embed"):
            nn.init.normal_(module.weight, std=0.02)
        else:
            nn.init.xavier_uniform_(module.weight)
    return transformer


class TextEncoders(nn.Module):
    """The pipeline's three text encoders and their tokenizers; `forward` conditions as the pipeline does."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer, self.t5_tokenizer = clip_tokenizer(), t5_tokenizer()
        config = CLIPTextConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=CLIP_WIDTH,
            intermediate_size=4 * CLIP_WIDTH,
            projection_dim=CLIP_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=SEQUENCE_LENGTH,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.clips = nn.ModuleList([CLIPTextModelWithProjection(config) for _ in range(2)])
        self.t5 = T5EncoderModel(
            T5Config(
                vocab_size=len(self.t5_tokenizer),
                d_model=TEXT_WIDTH,
                d_kv=32,
                d_ff=2 * TEXT_WIDTH,
                num_layers=2,
                num_heads=4,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
            )
        )
        self._ids: dict[str, tuple[list[int], list[int]]] = {}

    def forward(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt embeddings [N, 32, 128] and pooled embeddings [N, 128]."""
        ids = [self._tokens(prompt) for prompt in prompts]
        clip_ids, t5_ids = torch.tensor([one for one, _ in ids]), torch.tensor([other for _, other in ids])
        outputs = [clip(clip_ids, output_hidden_states=True) for clip in self.clips]
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        tokens = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return torch.cat([tokens, self.t5(t5_ids)[0]], dim=1), pooled

    def _tokens(self, prompt: str) -> tuple[list[int], list[int]]:
        if prompt not in self._ids:
            first, last = (
                tokenizer(prompt, padding="max_length", max_length=SEQUENCE_LENGTH, truncation=True).input_ids
                for tokenizer in (self.tokenizer, self.t5_tokenizer)
            )
            self._ids[prompt] = (first, last)
        return self._ids[prompt]


@dataclass
class Trainee:
    """What the second stage trains: the transformer together with the text encoders."""

    transformer: SD3Transformer2DModel
    encoders: TextEncoders

    @classmethod
    def untrained(cls, seed: int) -> "Trainee":
        """Initialised from the seed."""
        torch.manual_seed(seed)
        return cls(build_transformer(), TextEncoders())

    def parameters(self) -> list[nn.Parameter]:
        """Of all parts, in a fixed order."""
        return [*self.transformer.parameters(), *self.encoders.parameters()]


def assemble(trainee: Trainee, vae: AutoencoderKL) -> StableDiffusion3Pipeline:
    """The complete pipeline."""
    pipeline = StableDiffusion3Pipeline(
        transformer=trainee.transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT),
        vae=vae,
        text_encoder=trainee.encoders.clips[0].eval(),
        tokenizer=trainee.encoders.tokenizer,
        text_encoder_2=trainee.encoders.clips[1].eval(),
        tokenizer_2=trainee.encoders.tokenizer,
        text_encoder_3=trainee.encoders.t5.eval(),
        tokenizer_3=trainee.encoders.t5_tokenizer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _merged(word: tuple[str, ...], first: str, second: str) -> tuple[str, ...]:
    """The word with every `first` that is followed by `second` joined to it, from the left."""
    joined: list[str] = []
    for symbol in word:
        if joined and joined[-1] == first and symbol == second:
            joined[-1] = first + second
        else:
            joined.append(symbol)
    return tuple(joined)
