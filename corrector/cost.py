"""The cost of correcting one prompt: floating-point operations (FLOPs) by stage, a multiply-add counted as two.

`TransformerCost` counts the transformer, `corrector.base.encoder_cost` the VAE and the text encoders, each from its
configuration. Not counted: the adapter in forwards without gradients (below 1 % at rank 16), what gradient
checkpointing computes again, and a judge of images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corrector.base.encoder_cost import clip_flops, t5_flops, vae_flops
from corrector.base.spec import BaseSpec, components, json_object
from corrector.dreambooth.transformer_cost import TransformerCost
from corrector.evaluation.comparison import Comparison, Row
from corrector.prompts import (
    EvaluationSettings,
    FailingPrompt,
    GateThresholds,
    HyperParameters,
    look_shares,
)

if TYPE_CHECKING:
    import torch

    from corrector.evaluation.scorecard_parts import PredictionShift

STAGES = ("encode", "train", "own", "predictions", "guards", "negatives", "decode", "score")
UTILISATION = 0.4
"""Assumed share of the vendor's rate, where seconds are estimated before a run."""
VENDOR_RATES = {
    ("H100 80GB HBM3", "bfloat16"): 989.4e12,
    ("H100 SXM", "bfloat16"): 989.4e12,
    ("H100 PCIe", "bfloat16"): 756.0e12,
    ("H100 NVL", "bfloat16"): 835.5e12,
    ("H200 NVL", "bfloat16"): 835.5e12,
    ("H200", "bfloat16"): 989.4e12,
}
"""Dense FLOP/s of NVIDIA's data sheets; the first entry whose name is part of the device's counts."""
_SCORED_IMAGE = 767_815_104 + 2_137_096_192
"""One image through EfficientNet-Lite0 and open_nsfw, which always see 224 pixels a side."""
_T5 = "text_encoder_3"
_TEXT_ENCODERS = ("text_encoder", "text_encoder_2", _T5)


@dataclass(frozen=True)
class BaseCost:
    """FLOPs of a base's parts, for square images of one size.

    Attributes:
        transformer: Costs of the transformer for `patches` image patches and `tokens` text tokens.
        text: One text through all text encoders.
        encode, decode: One image through the VAE's encoder, and through its decoder.
        num_inference_steps, guidance_scale: The base's defaults.
    """

    transformer: TransformerCost
    patches: int
    tokens: int
    text: int
    encode: int
    decode: int
    num_inference_steps: int
    guidance_scale: float

    @classmethod
    def of(cls, spec: BaseSpec, side: int) -> BaseCost:
        """For images of `side` pixels; reads no weights."""
        names = components(spec.folder) & {"transformer", "vae", *_TEXT_ENCODERS}
        return cls.from_configs(
            {name: json_object(spec.folder / name / "config.json") for name in names},
            side,
            clip_tokens=spec.text_tokens - spec.max_sequence_length,
            t5_tokens=spec.max_sequence_length,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
        )

    @classmethod
    def from_configs(
        cls,
        configs: Mapping[str, Mapping[str, Any]],
        side: int,
        *,
        clip_tokens: int,
        t5_tokens: int,
        num_inference_steps: int,
        guidance_scale: float,
    ) -> BaseCost:
        """From the `config.json` of each component, by the component's name in the pipeline."""
        transformer = TransformerCost.of(configs["transformer"])
        factor = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
        encode, decode = vae_flops(configs["vae"], side)
        return cls(
            transformer=transformer,
            patches=(side // factor // transformer.patch) ** 2,
            tokens=clip_tokens + t5_tokens,
            text=sum(
                t5_flops(configs[name], t5_tokens) if name == _T5 else clip_flops(configs[name], clip_tokens)
                for name in _TEXT_ENCODERS
                if name in configs
            ),
            encode=encode,
            decode=decode,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )

    @property
    def forward(self) -> int:
        """One row's forward of the transformer without gradients."""
        return self.transformer.forward_flops(self.patches, self.tokens)

    def train(self, hyper: HyperParameters) -> int:
        """All steps of a fine-tune, and the class images of its prior preservation."""
        row = self.transformer.training_flops(self.patches, self.tokens, hyper.rank)
        kept = hyper.mean_preservation_rows
        target = self.forward if hyper.preservation == "guard" else 0
        images = hyper.class_images if hyper.preservation == "prior" else 0
        rows = (hyper.batch_size + kept) * row + kept * target
        return round(hyper.steps * rows) + images * self.image()

    def image(self, evaluation: EvaluationSettings | None = None) -> int:
        """Sampling the latents of one image; by default with the base's own steps and guidance."""
        steps, guidance = self.num_inference_steps, self.guidance_scale
        if evaluation is not None:
            steps = evaluation.num_inference_steps or steps
            guidance = guidance if evaluation.guidance_scale is None else evaluation.guidance_scale
        return steps * (2 if guidance > 1 else 1) * self.forward


@dataclass(frozen=True)
class Counts:
    """What the correction of one prompt encodes, draws and scores.

    Attributes:
        texts: Texts, counted as if none was in the cache.
        training, held_out: Exemplars.
        pairs: Pairs of the prompt's own images that are compared.
        own, guards, negatives: Images that base and corrected model draw; the base's kept ones do not count.
        predictions: Forwards by which predictions for guard prompts and hard negatives are compared.
    """

    texts: int
    training: int
    held_out: int
    pairs: int
    own: int
    predictions: int
    guards: int
    negatives: int

    @classmethod
    def of(
        cls,
        entry: FailingPrompt,
        evaluation: EvaluationSettings,
        drawn: Comparison,
        *,
        exemplars: tuple[int, int],
        new: Collection[Row],
        shifts: Sequence[PredictionShift],
    ) -> Counts:
        """Of a finished prompt.

        Args:
            drawn: The images that were compared.
            exemplars: Number of training and of held-out exemplars.
            new: The rows of `drawn` whose base images were drawn now, and not kept from before.
            shifts: Of the guard prompts and hard negatives whose predictions were compared.
        """
        from corrector.prompt_inputs import texts_of

        own, guards, negatives = _by_kind(drawn, new)
        noises = [shift.n for shift in shifts]
        predictions = 2 * sum(noises) + max(noises, default=0)
        texts = len(texts_of(entry, evaluation))
        return cls(texts, *exemplars, len(drawn.own), own, predictions, guards, negatives)

    @classmethod
    def bounds(
        cls,
        entry: FailingPrompt,
        evaluation: EvaluationSettings,
        gate: GateThresholds,
        *,
        exemplars: tuple[int, int],
    ) -> tuple[Counts, Counts]:
        """The fewest and the most.

        The fewest: refused at the first look, and the base's images kept from an earlier version. The most: passed at the last
        look, images of all guard prompts and hard negatives, and none kept.
        """
        from corrector.prompt_inputs import texts_of

        whole, texts = Comparison.of(entry, evaluation), len(texts_of(entry, evaluation))
        first = whole.part(min(look_shares(evaluation, gate))) if evaluation.stop_early else whole
        near = (*whole.guards, *whole.negatives) if evaluation.stop_early and evaluation.judge is None else ()
        noises = [len(each.seeds) for each in near]
        predictions = 2 * sum(noises) + max(noises, default=0)
        own, guards, negatives = _by_kind(first, ())
        lowest = cls(texts, *exemplars, len(first.own), own, 0, guards, negatives)
        own, guards, negatives = _by_kind(whole, set(whole.rows))
        return lowest, cls(texts, *exemplars, len(whole.own), own, predictions, guards, negatives)

    @property
    def images(self) -> int:
        """Images that base and corrected model draw."""
        return self.own + self.guards + self.negatives


@dataclass(frozen=True)
class CorrectionCost:
    """FLOPs of the correction of one prompt.

    Attributes:
        encode: Texts through the text encoders, exemplars through the VAE's encoder.
        train: The fine-tune.
        own: Sampling of the prompt's own images.
        predictions: Comparison of predictions for guard prompts and hard negatives.
        guards: Sampling of guard images.
        negatives: Sampling of hard negatives.
        decode: Images and exemplars through the VAE's decoder.
        score: Images and exemplars through the feature networks.
        images: Number of the images that were drawn.
    """

    encode: int
    train: int
    own: int
    predictions: int
    guards: int
    negatives: int
    decode: int
    score: int
    images: int

    @classmethod
    def of(
        cls, base: BaseCost, hyper: HyperParameters, evaluation: EvaluationSettings, counts: Counts
    ) -> CorrectionCost:
        """The cost of what `counts` says; every exemplar is also encoded and decoded for the check for copies."""
        exemplars, image = counts.training + counts.held_out, base.image(evaluation)
        encoded = exemplars + counts.training * (1 + hyper.horizontal_flip)
        # Scored, too: at each look the base's own images in the corrected ones' style, and exemplars as the VAE decodes them.
        looks = range(evaluation.look_images, counts.pairs, evaluation.look_images)
        restyled = counts.pairs + sum(looks if evaluation.stop_early else ())
        scored = counts.images + restyled + 2 * exemplars
        return cls(
            encode=counts.texts * base.text + encoded * base.encode,
            train=base.train(hyper),
            own=counts.own * image,
            predictions=counts.predictions * base.forward,
            guards=counts.guards * image,
            negatives=counts.negatives * image,
            decode=(counts.images + exemplars) * base.decode,
            score=scored * _SCORED_IMAGE,
            images=counts.images,
        )

    @property
    def by_stage(self) -> dict[str, int]:
        """FLOPs of each of `STAGES`."""
        return {stage: getattr(self, stage) for stage in STAGES}

    @property
    def total(self) -> int:
        """FLOPs in all."""
        return sum(self.by_stage.values())


def vendor_rate(device: str, dtype: torch.dtype) -> float | None:
    """Dense FLOP/s by the data sheet of the device of this name; None where it is not known."""
    known = (rate for (name, kind), rate in VENDOR_RATES.items() if name in device and kind in str(dtype))
    return next(known, None)


def device_seconds(seconds: Mapping[str, float]) -> float:
    """Seconds of a device that a record's stages took; scoring holds none."""
    return sum(value for stage, value in seconds.items() if stage != "scoring")


def dollars(seconds: float, hour: float) -> float:
    """Price of so many seconds of a device that costs `hour` dollars an hour."""
    return seconds * hour / 3600


def flops_text(flops: float) -> str:
    """For reading: "3.4 PFLOP"."""
    size, prefix = next(
        ((size, prefix) for size, prefix in ((1e15, "P"), (1e12, "T")) if flops >= size), (1e9, "G")
    )
    return f"{flops / size:.3g} {prefix}FLOP"


def _by_kind(drawn: Comparison, new: Collection[Row]) -> tuple[int, int, int]:
    """Images of the prompt itself, of guard prompts and of hard negatives: all the corrected model's, the base's in `new`."""

    def images(rows: Collection[Row]) -> int:
        return len(rows) + sum(row in new for row in rows)

    guards, negatives = (
        [(samples.prompt, seed) for samples in kind for seed in samples.seeds]
        for kind in (drawn.guards, drawn.negatives)
    )
    return images(drawn.own), images(guards), images(negatives)
