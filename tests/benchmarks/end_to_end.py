"""End to end: prompts corrected per hour of one device, from a pipeline folder on disk to saved adapters with verdicts.

    python -m tests.benchmarks.end_to_end [--prompts 16] [--steps 500] [--pairs 16] [--reference PATH] [--out FILE.json]

The clock runs while the base is resolved and loaded, prompts and exemplars are encoded, all fine-tunes are trained in
shared packs, every adapter is saved in diffusers' format, and --pairs images of it and of the base are drawn and scored. "One
after another" is the same in an engine of one slot; --alone of the prompts are corrected so, and each of the rest is taken to
last as long as their mean. The reference is one run of diffusers' script, whose adapter is then judged by the same protocol
with images that diffusers' pipeline draws; where --reference-steps is below --steps the rest of its steps are taken to last as
long as its median step. The text encoders and the VAE have the right shapes and are otherwise tiny, for both.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from corrector.adapters import save_adapter
from corrector.base import LatentPosterior, TextEmbeddings, resolve_base
from corrector.dreambooth import Engine, FineTune
from corrector.exemplars.fit import to_tensor
from corrector.loaded_base import NEGATIVE_PROMPT, Base
from corrector.prompts import HyperParameters
from tests.benchmarks import command
from tests.benchmarks.judging import Protocol, judge, judge_by_pipeline
from tests.benchmarks.machine import release_memory, synchronise
from tests.benchmarks.reference import PROMPT, Reference, write_images, write_pipeline
from tests.benchmarks.subject import EXEMPLARS, Subject
from tests.reference.script import ReferenceScript


@dataclass
class Stages:
    """Seconds of every stage."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        synchronise(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @property
    def total(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())


def correct(
    subject: Subject, folder: Path, images: Path, options: argparse.Namespace, *, slots: int, prompts: int
) -> Stages:
    """Corrects the first ``prompts`` prompts in packs of ``slots``, and says how long each stage took."""
    release_memory(subject.device)
    stage, protocol = Stages(subject.device), Protocol(options.pairs, options.sampling_steps)
    with stage("load"):
        spec = resolve_base(str(folder))
        base = Base(spec, device=subject.device, dtype=subject.dtype)
    with stage("encode"):
        texts = [f"a person lying on the grass {number}" for number in range(prompts)]
        embeddings = base.encode([NEGATIVE_PROMPT, *texts])
        pixels = pictures(images)
        posterior = base.encode_images(pixels)
    with stage("load"):
        engine = _engine(base, slots, options)
    with tempfile.TemporaryDirectory() as output:
        for first in range(0, prompts, slots):
            pack = texts[first : first + slots]
            with stage("train"):
                for text in pack:
                    engine.admit(_fine_tune(text, posterior, embeddings, options, seed=texts.index(text)))
                while engine.active:
                    engine.step()
                adapters = {text: engine.release(text) for text in pack}
            with stage("save"):
                for text, adapter in adapters.items():
                    save_adapter(adapter, Path(output) / text)
            with stage("judge"):
                judge(protocol, adapters, embeddings, base, engine.bank, pixels)
    return stage


def pictures(folder: Path) -> Tensor:
    """The pictures in ``folder``: ``[N, 3, H, W]``, values 0 to 1."""
    return torch.stack([to_tensor(Image.open(path)) for path in sorted(folder.iterdir())])


def _fine_tune(
    text: str,
    posterior: LatentPosterior,
    embeddings: Mapping[str, TextEmbeddings],
    options: argparse.Namespace,
    *,
    seed: int,
) -> FineTune:
    return FineTune(
        name=text,
        posterior=posterior,
        prompt=embeddings[text],
        hyperparameters=HyperParameters(
            rank=options.rank,
            batch_size=options.batch,
            steps=options.steps,
            seed=seed,
            preservation="none",
        ),
    )


def of_reference(script: Reference, images: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds that the script and the judging of its adapter take for one prompt, their starts included."""
    steps = min(options.reference_steps, options.steps)
    settings = HyperParameters(
        rank=options.rank, batch_size=options.batch, steps=options.steps, preservation="none"
    )
    start = time.perf_counter()
    run = script.train(settings, steps=steps)
    training = time.perf_counter() - start + (options.steps - steps) * run.seconds_per_step
    stage = Stages(script.subject.device)
    with stage("judge"):
        protocol = Protocol(options.pairs, options.sampling_steps)
        judge_by_pipeline(
            protocol, PROMPT, run.adapter, script.subject, script.folder / "pipeline", pictures(images)
        )
    return {
        "reference_measured_steps": steps,
        "reference_seconds_per_step": run.seconds_per_step,
        "reference_train_seconds_per_prompt": training,
        "reference_judge_seconds_per_prompt": stage.total,
        "reference_seconds_per_prompt": training + stage.total,
    }


def outcome(
    report: command.Report, subject: Subject, options: argparse.Namespace, packed: Stages, alone: Stages
) -> dict[str, Any]:
    """The figures of the run."""
    each = sum(alone.seconds[stage] for stage in ("train", "save", "judge")) / options.alone
    sequential = packed.seconds["load"] + packed.seconds["encode"] + options.prompts * each
    settings = HyperParameters(rank=options.rank, batch_size=options.batch, preservation="none")
    flops = options.prompts * options.steps * subject.step_flops(settings, _resolution(subject, options))
    return {
        "prompts": options.prompts,
        "steps": options.steps,
        "slots": options.slots,
        "pairs": options.pairs,
        "resolution": _resolution(subject, options),
        "seconds": packed.total,
        **{f"{stage}_seconds": seconds for stage, seconds in packed.seconds.items()},
        "prompts_per_hour": 3600 * options.prompts / packed.total,
        "training_images_per_second": options.prompts
        * options.steps
        * options.batch
        / packed.seconds["train"],
        **report.mfu(flops, packed.seconds["train"]),
        "sequential_measured_prompts": options.alone,
        "sequential_seconds": sequential,
        "sequential_prompts_per_hour": 3600 * options.prompts / sequential,
        "packed_over_sequential": sequential / packed.total,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    options = _parser().parse_args(arguments)
    options.slots = min(options.slots, options.prompts)
    subject = command.subject(options)
    resolution = _resolution(subject, options)
    report = command.Report("end_to_end", options, subject)
    with tempfile.TemporaryDirectory() as name:
        folder = write_pipeline(subject, Path(name) / "pipeline", resolution)
        images = write_images(Path(name) / "exemplars", EXEMPLARS, resolution)
        packed = correct(subject, folder, images, options, slots=options.slots, prompts=options.prompts)
        alone = correct(subject, folder, images, options, slots=1, prompts=options.alone)
        row = outcome(report, subject, options, packed, alone)
        if options.reference is not None:
            row |= of_reference(
                Reference(subject, resolution, ReferenceScript(options.reference), Path(name)),
                images,
                options,
            )
            seconds = row["reference_seconds_per_prompt"]
            row |= {
                "reference_prompts_per_hour": 3600 / seconds,
                "packed_over_reference": options.prompts * seconds / packed.total,
            }
    report.add(row)
    report.show(f"from start to verdicts, {options.model}", COLUMNS)


COLUMNS = {
    "prompts": "prompts",
    "steps": "steps",
    "slots": "slots",
    "resolution": "px",
    "load_seconds": "load s",
    "encode_seconds": "encode s",
    "train_seconds": "train s",
    "save_seconds": "save s",
    "judge_seconds": "judge s",
    "prompts_per_hour": "prompts/h",
    "sequential_prompts_per_hour": "one after another",
    "packed_over_sequential": "ratio",
    "reference_prompts_per_hour": "reference",
    "packed_over_reference": "ratio",
}


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("Corrected prompts per device hour, from start to verdicts.")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--slots", type=int, default=16, help="fine-tunes in the pack")
    parser.add_argument("--batch", type=int, default=1, help="exemplar rows per fine-tune and step")
    parser.add_argument("--resolution", type=int, help="pixels a side (default: 512, or the small base's)")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument(
        "--pairs", type=int, default=16, help="images of base and adapter that judge a prompt"
    )
    parser.add_argument("--sampling-steps", type=int, default=28)
    command.add_compile(parser)
    parser.add_argument("--alone", type=int, default=1, help="prompts that are measured one after another")
    parser.add_argument(
        "--reference-steps", type=int, default=30, help="steps that the script is measured for"
    )
    return parser


def _resolution(subject: Subject, options: argparse.Namespace) -> int:
    return options.resolution or subject.default_resolution


def _engine(base: Base, slots: int, options: argparse.Namespace) -> Engine:
    engine = Engine(
        base.transformer,
        base.scheduler,
        slots=slots,
        rank=options.rank,
        report_every=10,
        compile=options.compile,
    )
    command.check_compiled(options.compile, engine.compiled)
    return engine


if __name__ == "__main__":
    main()
