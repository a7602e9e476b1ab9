"""What the correction of one prompt costs, by arithmetic, under the protocols of drawing images.

    python -m tests.benchmarks.cost [--batch 1] [--steps 500] [--rank 16]

Five guard prompts and four hard negatives, 12 training and 12 held-out exemplars, 28 sampling steps with guidance. The figures
are counted from the published configurations; nothing runs.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from corrector.cost import STAGES, BaseCost, CorrectionCost, Counts
from corrector.prompts import EvaluationSettings, HyperParameters
from tests.support.sd3_family import Model, configuration

MODELS: tuple[Model, ...] = ("sd3-medium", "sd3.5-medium")
SIDES = (512, 1024)
PETA = 1e15

_CLIP = {"vocab_size": 49408, "max_position_embeddings": 77}
CONFIGS: dict[str, dict[str, Any]] = {
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "text_encoder": _CLIP
    | {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    | {"projection_dim": 768},
    "text_encoder_2": _CLIP
    | {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
    | {"projection_dim": 1280},
    "text_encoder_3": {"vocab_size": 32128, "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64}
    | {"num_layers": 24, "feed_forward_proj": "gated-gelu"},
}
"""The configurations on the hub, as far as they determine the operations; both models have the same."""

_GUARDS, _GUARD_IMAGES, _NEGATIVES, _NEGATIVE_IMAGES = 5, 24, 4, 2
_COMMON = {"texts": 2 + _GUARDS + _NEGATIVES, "training": 12, "held_out": 12}
_PREDICTIONS = _GUARD_IMAGES * (2 * _GUARDS + 1) + 2 * _NEGATIVES * _NEGATIVE_IMAGES
FIXED = "fixed: 32, 8 a guard prompt"
PROTOCOLS = {
    FIXED: Counts(
        **_COMMON, pairs=32, own=64, predictions=0, guards=2 * 8 * _GUARDS, negatives=2 * _NEGATIVES * 3
    ),
    "first version: 16, no guard moved": Counts(
        **_COMMON, pairs=16, own=32, predictions=_PREDICTIONS, guards=0, negatives=2 * _NEGATIVE_IMAGES
    ),
    "first version: 16, one guard moved": Counts(
        **_COMMON,
        pairs=16,
        own=32,
        predictions=_PREDICTIONS,
        guards=2 * _GUARD_IMAGES,
        negatives=2 * _NEGATIVE_IMAGES,
    ),
    "first version: refused at 8": Counts(**_COMMON, pairs=8, own=16, predictions=0, guards=0, negatives=0),
    "next version: 16, no guard moved": Counts(
        **_COMMON, pairs=16, own=16, predictions=_PREDICTIONS, guards=0, negatives=_NEGATIVE_IMAGES
    ),
}
"""Pairs of the prompt's own images, and which guard prompts are drawn; the next version finds the base's images kept.
Predictions move one of the hard negatives, so that its images are drawn.

The fixed protocol was this project's before it stopped early. Its training has as many guard rows as exemplar rows.
"""


def base_cost(model: Model, side: int) -> BaseCost:
    """The cost of a model of the family, for images of `side` pixels."""
    return BaseCost.from_configs(
        CONFIGS | {"transformer": configuration(model)},
        side,
        clip_tokens=77,
        t5_tokens=256,
        num_inference_steps=28,
        guidance_scale=7.0,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description="FLOPs of the correction of one prompt, by stage.")
    parser.add_argument("--batch", type=int, default=1, help="exemplar rows a step")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rank", type=int, default=16)
    options = parser.parse_args(arguments)
    hyper = HyperParameters(batch_size=options.batch, steps=options.steps, rank=options.rank)
    even = hyper.model_copy(update={"preservation_batch_size": options.batch})
    for model in MODELS:
        for side in SIDES:
            base = base_cost(model, side)
            table = Table(title=f"PFLOP of a prompt, {model} at {side} pixels")
            totals: list[int] = []
            for column in ("protocol", "images", *STAGES, "without train", "in all", "share"):
                table.add_column(column, justify="left" if column == "protocol" else "right")
            for name, counts in PROTOCOLS.items():
                cost = CorrectionCost.of(base, even if name == FIXED else hyper, EvaluationSettings(), counts)
                totals.append(cost.total)
                figures = [*cost.by_stage.values(), cost.total - cost.train, cost.total]
                share = f"{totals[-1] / totals[0]:.2f}"
                table.add_row(name, str(cost.images), *(f"{each / PETA:.3g}" for each in figures), share)
            Console(width=170).print(table)


if __name__ == "__main__":
    main()
