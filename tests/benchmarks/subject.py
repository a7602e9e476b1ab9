"""What is benchmarked: a transformer of the SD3 family with random weights, and fine-tunes with random data for it."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import torch
from diffusers import SD3Transformer2DModel

from corrector.base import LatentPosterior, TextEmbeddings, resolve_base
from corrector.dreambooth import FineTune
from corrector.dreambooth.transformer_cost import TransformerCost
from corrector.prompts import HyperParameters
from tests.reference.script import CLIP_TOKENS
from tests.support import sd3_family, small_sd3

Model = Literal["sd3-medium", "sd3.5-medium", "sd3.5-large", "embedded", "small"]
MODELS: tuple[Model, ...] = get_args(Model)
EXEMPLARS = 5
GUARDS = 5


@dataclass(frozen=True)
class Subject:
    """A transformer, which images it is asked for, and where it runs."""

    model: Model
    layers: int | None
    """None: all of them."""
    device: torch.device
    dtype: torch.dtype
    reference_lengths: bool = False
    """Whether prompts have as many CLIP tokens as diffusers' script pads to, even where the base's own are fewer."""

    @property
    def config(self) -> dict[str, Any]:
        """The transformer's configuration."""
        if self.model in sd3_family.MODELS:
            return sd3_family.configuration(self.model, layers=self.layers)
        own = (
            _embedded_config()
            if self.model == "embedded"
            else dict(small_sd3.small_transformer("sd35").config)
        )
        layers = {} if self.layers is None else {"num_layers": self.layers}
        return {key: value for key, value in own.items() if not key.startswith("_")} | layers

    @property
    def cost(self) -> TransformerCost:
        """What the transformer costs, by arithmetic."""
        return TransformerCost.of(self.config)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights and buffers in memory, which are those that a checkpoint holds."""
        with torch.device("meta"):
            empty = SD3Transformer2DModel(**self.config)
        return sum(tensor.numel() for tensor in empty.state_dict().values()) * self.dtype.itemsize

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent pixel, along each side."""
        return {"embedded": 4, "small": 2}.get(self.model, sd3_family.VAE_SCALE_FACTOR)

    @property
    def text_lengths(self) -> tuple[int, int]:
        """Tokens of a prompt for the CLIPs and for T5."""
        small = (small_sd3.CLIP_LENGTH, small_sd3.MAX_SEQUENCE_LENGTH)
        clip, t5 = {"embedded": (16, 16), "small": small}.get(self.model, (CLIP_TOKENS, 256))
        return CLIP_TOKENS if self.reference_lengths else clip, t5

    @property
    def tokens(self) -> int:
        """Tokens of a prompt in all."""
        return sum(self.text_lengths)

    @property
    def default_resolution(self) -> int:
        """Side of the images in pixels where none is asked for."""
        return {"embedded": 64, "small": small_sd3.RESOLUTION}.get(self.model, 512)

    def patches(self, resolution: int) -> int:
        """Image patches of a square image of ``resolution`` pixels a side."""
        return (resolution // self.vae_scale_factor // self.config["patch_size"]) ** 2

    def transformer(self) -> SD3Transformer2DModel:
        """A frozen transformer with seeded random weights; speed and memory do not depend on what they are."""
        if self.model in sd3_family.MODELS:
            return sd3_family.random_transformer(
                self.model, layers=self.layers, dtype=self.dtype, device=self.device
            )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            transformer = SD3Transformer2DModel(**self.config)
        return transformer.to(self.device, self.dtype).requires_grad_(False).eval()

    def step_flops(self, settings: HyperParameters, resolution: int) -> int:
        """Operations of one optimiser step of one fine-tune; recomputed activations are not counted."""
        patches, kept = self.patches(resolution), settings.mean_preservation_rows
        training = self.cost.training_flops(patches, self.tokens, settings.rank)
        target = self.cost.forward_flops(patches, self.tokens) if settings.preservation == "guard" else 0
        return round(settings.batch_size * training + kept * (training + target))

    def latents(self, rows: int, resolution: int, generator: torch.Generator) -> torch.Tensor:
        """Random latents ``[rows, C, h, w]`` float32 on the CPU."""
        side = resolution // self.vae_scale_factor
        return torch.randn(rows, self.config["in_channels"], side, side, generator=generator)

    def texts(self, rows: int, generator: torch.Generator) -> TextEmbeddings:
        """Random text embeddings of ``rows`` prompts, float32 on the CPU."""
        width, pooled = self.config["joint_attention_dim"], self.config["pooled_projection_dim"]
        return TextEmbeddings(
            torch.randn(rows, self.tokens, width, generator=generator),
            torch.randn(rows, pooled, generator=generator),
        )

    def fine_tunes(self, settings: Sequence[HyperParameters], resolution: int) -> list[FineTune]:
        """A fine-tune for each of ``settings``, with data of its own."""
        tasks = []
        for number, own in enumerate(settings):
            generator = torch.Generator().manual_seed(number)
            mean = self.latents(EXEMPLARS, resolution, generator)
            tasks.append(
                FineTune(
                    name=f"fine-tune {number}",
                    posterior=LatentPosterior(mean, torch.full_like(mean, 0.05)),
                    prompt=self.texts(1, generator),
                    hyperparameters=own,
                    guards=self.texts(GUARDS, generator) if own.preservation == "guard" else None,
                )
            )
        return tasks


def twin(transformer: SD3Transformer2DModel) -> SD3Transformer2DModel:
    """Another module over the same weights in memory, for hooks and layers of its own."""
    shared = {id(tensor): tensor for tensor in (*transformer.parameters(), *transformer.buffers())}
    return copy.deepcopy(transformer, shared)


@cache
def _embedded_config() -> dict[str, Any]:
    path = resolve_base("embedded").folder / "transformer" / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config
