"""correct: train, sample, score and judge one failing prompt, in this process."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress
from torch import Tensor

from corrector.adapters import Adapter, adapter_bytes, save_adapter
from corrector.base import free_memory, transformer_bytes
from corrector.dreambooth import Engine, FineTune, StepReport
from corrector.dreambooth.pack_plan import plan_packs
from corrector.errors import UserError
from corrector.evaluation import Comparison, FeatureMemory, GateVerdict, ImageJudge, Scorecard
from corrector.evaluation.verdicts import named_judge
from corrector.exemplars import contact_sheet
from corrector.judging import checked_exemplars, judge_adapter, progress_bar, timed
from corrector.loaded_base import Base
from corrector.prompt_inputs import ExemplarImages, fine_tune, texts_of
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds, HyperParameters
from corrector.record.correction_record import CorrectionRecord
from corrector.record.writing import code_version, correction_record, write_comparison

if TYPE_CHECKING:
    from PIL.Image import Image

_SHOWN_PAIRS = 8
_MEMORY_SHARE = 0.85
"""Of the free memory that training may use; the VAE and the allocator need some."""


@dataclass(frozen=True, eq=False)
class Correction:
    """A trained adapter and the result of its comparison with the base.

    Attributes:
        entry: The prompt, with the hyper-parameters that were used.
        adapter: The trained LoRA adapter.
        comparison: Text and seed of every image in ``before`` and ``after``: what was drawn until the verdict was known.
        before: ``[N, 3, H, W]``, values 0 to 1: all images of the base, the prompt's own first.
        after: The same rows with the adapter.
        exemplars: Training and held-out exemplars.
        record: Scorecard, loss curve, seeds, times, sources of the exemplars and lineage.
        notes: What was left out of the exemplars, and what makes them doubtful, in sentences.
    """

    entry: FailingPrompt
    adapter: Adapter
    comparison: Comparison
    before: Tensor
    after: Tensor
    exemplars: ExemplarImages
    record: CorrectionRecord
    notes: tuple[str, ...] = ()

    @property
    def scorecard(self) -> Scorecard:
        assert self.record.scorecard is not None
        return self.record.scorecard

    @property
    def verdict(self) -> GateVerdict:
        """Whether the gate passed, and every check of it."""
        return self.scorecard.verdict

    def show(self, pairs: int = _SHOWN_PAIRS) -> Image:
        """The prompt's first ``pairs`` images: the base's above, those of the same seeds with the adapter below."""
        count = min(pairs, len(self.comparison.own))
        own = [self.comparison.split(images)[0][:count] for images in (self.before, self.after)]
        labels = [f"{side} {seed}" for side in ("before", "after") for _, seed in self.comparison.own[:count]]
        scale = max(1, 128 // self.before.shape[-1])
        return contact_sheet([*own[0], *own[1]], columns=count, labels=labels, scale=scale)

    def save(self, folder: Path | str) -> Path:
        """Writes the adapter into ``folder``, for diffusers' ``load_lora_weights(folder)``; returns the weights' path."""
        return save_adapter(self.adapter, Path(folder))

    def save_record(self, folder: Path | str) -> Path:
        """Writes adapter, images and record.json, as a job does for the registry; returns the path of record.json."""
        write_comparison(
            Path(folder),
            self.comparison,
            adapter=self.adapter,
            training=self.exemplars.training,
            held_out=self.exemplars.held_out,
            before=self.before,
            after=self.after,
        )
        return self.record.save(Path(folder))

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        buffer = io.BytesIO()
        self.show().save(buffer, format="PNG")
        return buffer.getvalue()


def correct(
    prompt: FailingPrompt,
    base: Base,
    *,
    evaluation: EvaluationSettings | None = None,
    gate: GateThresholds | None = None,
    hyperparameters: HyperParameters | Mapping[str, Any] | None = None,
    judge: ImageJudge | None = None,
    decisions: Path | str | None = None,
    accept_exemplars: bool = False,
    progress: bool = True,
) -> Correction:
    """Trains an adapter for ``prompt``, samples it and the base from the same seeds, scores both, and judges.

    Images are drawn until the verdict is known; the base's are kept in its cache for the next version of the prompt.

    On the same device and in the same precision, losses, images and figures are bit-identical to those of a job whose lane
    has one slot.

    Args:
        evaluation: How base and adapter are compared; None: the defaults, as for ``gate``.
        hyperparameters: Replace the prompt's own; a mapping replaces only those that it names.
        judge: Says of each image whether it is right; with one the gate can tell "fixed" from "improved". None: that of
            ``evaluation``, if it names one.
        decisions: The file of decisions about exemplars that a review page saved; those that it drops are left out.
        accept_exemplars: Whether exemplars are used, unchecked, that curation would call not effective.
        progress: Whether notes and a progress bar are shown on the terminal or in the notebook.

    Raises:
        UserError: Exemplars are not effective; they, base and hyper-parameters do not fit each other or the device; or
            training diverged.
    """
    entry = _with_hyperparameters(prompt, hyperparameters)
    evaluation, gate = evaluation or EvaluationSettings(), gate or GateThresholds()
    memory = FeatureMemory(judge=judge or named_judge(evaluation.judge), cache=base.cache)
    remedy = "call again with decisions=FILE, or with accept_exemplars=True"
    exemplar_set = checked_exemplars(
        entry, base, memory, decisions, check=not accept_exemplars, remedy=remedy
    )
    exemplars = ExemplarImages.of(exemplar_set)
    embeddings = base.encode(texts_of(entry, evaluation))
    engine = _engine(entry, base)
    seconds: dict[str, float] = {}
    try:
        with progress_bar(shown=progress) as bar:
            for note in exemplar_set.notes if progress else ():
                bar.console.print(note, markup=False, highlight=False)
            with timed(seconds, "training"):
                task = fine_tune(entry, exemplars, embeddings, base, bank=engine.bank)
                adapter, curve = _train(engine, task, bar)
            engine.bank.load(1, adapter)
            judged = judge_adapter(
                entry,
                base,
                engine.bank,
                exemplars,
                embeddings,
                memory=memory,
                evaluation=evaluation,
                gate=gate,
                bar=bar,
                seconds=seconds,
            )
    finally:
        engine.bank.remove()
    record = correction_record(
        entry,
        base.spec,
        judged.comparison,
        work_id=entry.work_id(base.spec.identity, list(exemplar_set.file_digests.values()), evaluation, gate),
        evaluation=evaluation,
        gate=gate,
        exemplars=exemplar_set.sources,
        code=code_version(),
        status=judged.status,
        adapter_sha256=hashlib.sha256(adapter_bytes(adapter)).hexdigest(),
        scorecard=judged.card,
        curve=[asdict(report) for report in curve],
        hard_negatives=judged.comparison.negatives,
        seconds={name: round(value, 2) for name, value in seconds.items()},
        cost=judged.candidate.cost(entry, base, evaluation),
    )
    return Correction(
        entry,
        adapter,
        judged.comparison,
        judged.before,
        judged.after,
        exemplars,
        record,
        exemplar_set.notes,
    )


def _with_hyperparameters(
    prompt: FailingPrompt, changes: HyperParameters | Mapping[str, Any] | None
) -> FailingPrompt:
    if changes is None:
        return prompt
    if not isinstance(changes, HyperParameters):
        changes = HyperParameters.model_validate({**dict(prompt.hyperparameters), **changes})
    return FailingPrompt.model_validate({**dict(prompt), "hyperparameters": changes})


def _engine(entry: FailingPrompt, base: Base) -> Engine:
    """An engine of one slot; if memory is short, it splits the forward pass or recomputes blocks."""
    base.transformer  # noqa: B018 - loaded now, so that free memory is measured with it in place
    weights = transformer_bytes(base.spec, base.device, dtype=base.dtype, offload=base.offload)
    free = weights + int(_MEMORY_SHARE * free_memory(base.device))
    plan = plan_packs(
        base.spec.transformer_config,
        [entry.hyperparameters],
        resolution=base.spec.resolution,
        vae_scale_factor=base.spec.vae_scale_factor,
        tokens=base.spec.text_tokens,
        memory_bytes=free,
        lanes=1,
        dtype=base.dtype,
        weights_bytes=weights,
    )
    return Engine(
        base.transformer,
        base.scheduler,
        slots=1,
        rank=entry.hyperparameters.rank,
        base_revision=base.spec.revision,
        tokens_per_forward=plan.tokens_per_forward,
        checkpointing=plan.checkpointing or base.offload,
        device=base.device,
    )


def _train(engine: Engine, task: FineTune, bar: Progress) -> tuple[Adapter, list[StepReport]]:
    """The trained adapter and the reports of its steps; raises :class:`UserError` where it diverged."""
    training = bar.add_task("training", total=task.hyperparameters.steps)
    engine.admit(task)
    while engine.active:
        newest = engine.step().get(task.name)
        if newest is not None:
            bar.update(training, completed=newest.step, description=f"training, loss {newest.loss:.4f}")
    if engine.failures:
        raise UserError(f"{task.name}: {engine.failures[0].reason}")
    curve = engine.history(task.name)
    return engine.release(task.name), curve
