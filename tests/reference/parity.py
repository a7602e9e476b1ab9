"""This project's training beside diffusers' own script on the same weights, images and random draws, in float32.

    python -m tests.reference.parity --reference PATH [--out FILE.json]

PATH is a checkout of huggingface/diffusers. Every case is one run of its script, five steps, and the same five steps by
``corrector``: encoding, objective, packed pass, optimiser and schedule, each feeding the next, so that differences
accumulate as they would in use. Images are of the training resolution already: the script resizes bilinearly, this project
with Lanczos. The adapter starts as the script's does, Gaussian; this project's own start as PEFT's default, Kaiming-uniform.
The script's prior preservation works at batch size 1 alone: it lays two rows of text beside twice the batch of latents.

A relative difference is the largest absolute difference over the largest absolute value of the reference.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from corrector.adapters import load_adapter
from corrector.base import resolve_base
from corrector.errors import UserError
from corrector.prompts import HyperParameters
from tests.benchmarks.machine import describe
from tests.reference.pipelines import with_clip_length, write_pictures
from tests.reference.recording import Weights
from tests.reference.replay import Replay, replay
from tests.reference.script import ReferenceRun, ReferenceScript
from tests.support.paths import EXEMPLARS
from tests.support.small_sd3 import write_small_sd3

STEPS = 5

Base = Literal["small sd3", "small sd3.5", "embedded"]
PICTURES = EXEMPLARS / "person-lying-on-the-grass"
PROMPT = "a person lying on the grass"
CLASS_PROMPT = "a person"


@dataclass(frozen=True)
class Case:
    """One fine-tune to run both ways."""

    name: str
    base: Base
    settings: HyperParameters
    neighbours: int = 0
    """Other fine-tunes in this project's pack."""


def _settings(**changes: Any) -> HyperParameters:
    common: dict[str, Any] = {
        "rank": 4,
        "batch_size": 2,
        "steps": STEPS,
        "learning_rate": 1e-3,
        "preservation": "none",
        "seed": 7,
    }
    return HyperParameters(**common | changes)


CASES = (
    Case("defaults", "small sd3", _settings()),
    Case("defaults, beside three others", "small sd3", _settings(), neighbours=3),
    Case(
        "cosmap, velocity, cosine",
        "small sd3.5",
        _settings(
            timestep_density="cosmap", precondition_outputs=False, lr_schedule="cosine", warmup_steps=2
        ),
    ),
    Case("sigma_sqrt, linear", "small sd3.5", _settings(timestep_density="sigma_sqrt", lr_schedule="linear")),
    Case(
        "prior preservation",
        "small sd3.5",
        _settings(batch_size=1, preservation="prior", preservation_weight=0.5),
    ),
    Case("defaults, rank 16", "embedded", _settings(rank=16, learning_rate=1e-4)),
    Case("the same beside seven others", "embedded", _settings(rank=16, learning_rate=1e-4), neighbours=7),
)


@dataclass(frozen=True)
class Difference:
    """How far a quantity is from the reference's: the largest over all steps, rows and layers."""

    absolute: float
    relative: float


@dataclass(frozen=True)
class Comparison:
    """A case run both ways."""

    reference: ReferenceRun
    ours: Replay

    def differences(self) -> dict[str, Difference]:
        """By the quantity's name, in the order in which they arise."""
        steps = list(zip(self.reference.steps, self.ours.steps, strict=True))
        first, last = steps[0][0], steps[-1]
        pairs: dict[str, list[tuple[Sequence[Tensor], Sequence[Tensor]]]] = {
            "text embeddings": [
                ((first.prompt, first.pooled), (self.ours.texts.prompt, self.ours.texts.pooled))
            ]
        }
        for name in ("latents", "sigmas", "timesteps", "noisy", "prediction", "loss"):
            pairs[name] = [((getattr(theirs, name),), (getattr(ours, name),)) for theirs, ours in steps]
        pairs["gradients"] = [(_flat(theirs.gradients), _flat(ours.gradients)) for theirs, ours in steps]
        pairs["gradient norm"] = [((theirs.gradient_norm,), (ours.gradient_norm,)) for theirs, ours in steps]
        pairs["learning rate"] = [
            ((torch.tensor(theirs.learning_rate),), (torch.tensor(ours.learning_rate),))
            for theirs, ours in steps
        ]
        initial = _flat(self.reference.initial)
        trained, expected = _flat(last[1].weights), _flat(last[0].weights)
        pairs["weights at the end"] = [(expected, trained)]
        pairs["their change in training"] = [(_minus(expected, initial), _minus(trained, initial))]
        pairs["saved adapter"] = [(_flat(load_adapter(self.reference.adapter).weights), trained)]
        return {name: _largest(values) for name, values in pairs.items()}


class Workbench:
    """Runs cases with ``script`` in ``folder``: pipelines, pictures and adapters go there."""

    def __init__(self, script: ReferenceScript, folder: Path) -> None:
        self._script, self._folder = script, folder
        self._runs: dict[tuple[Base, HyperParameters], ReferenceRun] = {}

    def compare(self, case: Case) -> Comparison:
        """The case both ways; the script runs once for all cases that differ in this project's pack alone."""
        pipeline = self.pipeline(case.base)
        key = case.base, case.settings
        if key not in self._runs:
            self._runs[key] = self._reference(case, pipeline)
        prompts = [PROMPT, CLASS_PROMPT] if case.settings.preservation == "prior" else [PROMPT]
        ours = replay(
            self._runs[key], resolve_base(str(pipeline)), prompts, case.settings, neighbours=case.neighbours
        )
        return Comparison(self._runs[key], ours)

    def _reference(self, case: Case, pipeline: Path) -> ReferenceRun:
        settings, spec = case.settings, resolve_base(str(pipeline))
        return self._script.train(
            pipeline,
            images=self._pictures(case.base),
            prompt=PROMPT,
            output=self._folder / "adapters" / str(len(self._runs)),
            rank=settings.rank,
            steps=settings.steps,
            batch_size=settings.batch_size,
            resolution=spec.resolution,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            max_sequence_length=spec.max_sequence_length,
            capture=True,
            cpu=True,
            **_options(settings),
            **self._preservation(settings, spec.resolution),
        )

    def pipeline(self, base: Base) -> Path:
        """The folder of ``base``, its CLIPs lengthened to what the script pads to."""
        folder = self._folder / base
        if not folder.is_dir():
            if base == "embedded":
                source = resolve_base("embedded").folder
            else:
                source = write_small_sd3(
                    self._folder / f"{base}, short", "sd3" if base == "small sd3" else "sd35"
                )
            with_clip_length(source, folder)
        return folder

    def _pictures(self, base: Base) -> Path:
        return PICTURES if base == "embedded" else write_pictures(self._folder / "exemplars", 4)

    def _preservation(self, settings: HyperParameters, resolution: int) -> dict[str, Any]:
        if settings.preservation != "prior":
            return {}
        pictures = write_pictures(self._folder / "class images", 4, seed=1, resolution=resolution)
        return {
            "with_prior_preservation": True,
            "class_data_dir": str(pictures),
            "class_prompt": CLASS_PROMPT,
            "num_class_images": 4,
            "prior_loss_weight": settings.preservation_weight,
        }


def _options(settings: HyperParameters) -> dict[str, Any]:
    """The same settings by the script's names."""
    return {
        "weighting_scheme": settings.timestep_density,
        "logit_mean": settings.logit_mean,
        "logit_std": settings.logit_std,
        "mode_scale": settings.mode_scale,
        "precondition_outputs": int(settings.precondition_outputs),
        "lr_scheduler": settings.lr_schedule,
        "lr_warmup_steps": settings.warmup_steps,
        "adam_beta1": settings.beta1,
        "adam_beta2": settings.beta2,
        "adam_weight_decay": settings.weight_decay,
        "adam_epsilon": settings.epsilon,
        "max_grad_norm": settings.max_grad_norm,
    }


def _flat(weights: Weights) -> list[Tensor]:
    return [half for path in sorted(weights) for half in weights[path]]


def _minus(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    return [tensor - other for tensor, other in zip(tensors, others, strict=True)]


def _largest(values: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]]) -> Difference:
    absolute = relative = 0.0
    for expected, found in values:
        apart = max(float((one - other).abs().max()) for one, other in zip(expected, found, strict=True))
        size = max(float(tensor.abs().max()) for tensor in expected)
        absolute, relative = max(absolute, apart), max(relative, apart / size if size else apart)
    return Difference(absolute, relative)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description="This project's training beside diffusers' own script.")
    parser.add_argument("--reference", type=Path, required=True, help="checkout of huggingface/diffusers")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    try:
        script = ReferenceScript(options.reference)
    except UserError as error:
        sys.exit(f"parity: {error}")
    about = describe(torch.device("cpu"))
    print(f"script {script.version}; " + ", ".join(f"{name} {value}" for name, value in about.items()))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        workbench = Workbench(script, Path(folder))
        for case in CASES:
            compared = workbench.compare(case)
            differences = compared.differences()
            print(f"\n{case.base}: {case.name}\n{'':26}{'absolute':>10}{'relative':>10}")
            for name, difference in differences.items():
                print(f"{name:26}{difference.absolute:10.1e}{difference.relative:10.1e}")
            theirs, ours = (
                [float(step.loss) for step in run.steps] for run in (compared.reference, compared.ours)
            )
            print("losses of the script      " + "  ".join(f"{loss:.7f}" for loss in theirs))
            print("of this project           " + "  ".join(f"{loss:.7f}" for loss in ours), flush=True)
            results.append(
                {
                    "case": case.name,
                    "base": case.base,
                    "neighbours": case.neighbours,
                    "hyperparameters": case.settings.model_dump(mode="json"),
                    "differences": {name: asdict(difference) for name, difference in differences.items()},
                    "reference_losses": theirs,
                    "losses": ours,
                }
            )
    if options.out:
        options.out.write_text(
            json.dumps({"machine": about, "script": script.version, "results": results}, indent=2) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
