"""correct: train, sample, score and judge one failing prompt, in this process."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from corrector.adapters import Adapter, adapter_bytes, save_adapter
from corrector.dreambooth import Engine, FineTune, StepReport
from corrector.errors import UserError
from corrector.evaluation import Comparison, GateVerdict, Scorecard, score
from corrector.evaluation.images import as_stored
from corrector.exemplars import contact_sheet, load_exemplars
from corrector.pipeline import Base
from corrector.preparation import (
    ExemplarImages,
    comparison_rows,
    decoded_exemplars,
    fine_tune,
    side_of,
    texts_of,
)
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds, HyperParameters
from corrector.record.correction import CorrectionRecord
from corrector.record.writing import code_version, correction_record, write_comparison

if TYPE_CHECKING:
    from PIL.Image import Image

_SHOWN_PAIRS = 8


@dataclass(frozen=True, eq=False)
class Correction:
    """A trained adapter and what the comparison says of it.

    Attributes:
        entry: The prompt, with the hyper-parameters that were used.
        adapter: The trained LoRA adapter.
        comparison: Text and seed of every image in ``before`` and ``after``.
        before: ``[N, 3, H, W]``, values 0 to 1: all images of the base, the prompt's own first.
        after: The same rows with the adapter.
        exemplars: Training and held-out exemplars.
        record: Everything that is known of it; the scorecard and the loss curve are in there.
    """

    entry: FailingPrompt
    adapter: Adapter
    comparison: Comparison
    before: Tensor
    after: Tensor
    exemplars: ExemplarImages
    record: CorrectionRecord

    @property
    def scorecard(self) -> Scorecard:
        """The figures."""
        assert self.record.scorecard is not None
        return self.record.scorecard

    @property
    def verdict(self) -> GateVerdict:
        """Whether the gate passed, and every check of it."""
        return self.scorecard.verdict

    def show(self, pairs: int = _SHOWN_PAIRS) -> Image:
        """The first ``pairs`` images of the prompt: the base's above, those with the adapter and the same seeds below."""
        count = min(pairs, len(self.comparison.own))
        own = [self.comparison.split(images)[0][:count] for images in (self.before, self.after)]
        labels = [f"{side} {seed}" for side in ("before", "after") for _, seed in self.comparison.own[:count]]
        scale = max(1, 128 // self.before.shape[-1])
        return contact_sheet([*own[0], *own[1]], columns=count, labels=labels, scale=scale)

    def save(self, folder: Path | str) -> Path:
        """Writes the adapter into ``folder``, for diffusers' ``load_lora_weights(folder)``; returns the weights' path."""
        return save_adapter(self.adapter, Path(folder))

    def save_record(self, folder: Path | str) -> Path:
        """Writes adapter, images and record.json, as a job leaves them for the registry; returns the path of record.json."""
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
    progress: bool = True,
) -> Correction:
    """Trains an adapter for ``prompt``, samples it and the base from the same seeds, scores both, and judges.

    The same functions as in a job with a lane of one slot: losses, images and figures are equal to the last digit where
    device and precision are.

    Args:
        evaluation: How base and adapter are compared; None: the defaults, as for ``gate``.
        hyperparameters: In place of the prompt's own; a mapping changes those that it names.
        progress: Whether a progress bar is shown on the terminal or in the notebook.

    Raises:
        UserError: Exemplars, base and hyper-parameters do not go together, or training diverged.
    """
    entry = _with_hyperparameters(prompt, hyperparameters)
    evaluation, gate = evaluation or EvaluationSettings(), gate or GateThresholds()
    side = side_of(entry, base.spec)
    exemplar_set = load_exemplars(Path(entry.exemplars), resolution=side, seed=entry.hyperparameters.seed)
    exemplars = ExemplarImages.of(exemplar_set)
    embeddings = base.encode(texts_of(entry, evaluation))
    comparison = Comparison.of(entry, evaluation)
    engine = Engine(
        base.transformer,
        base.scheduler,
        slots=1,
        rank=entry.hyperparameters.rank,
        base_revision=base.spec.revision,
        checkpointing=base.offload,
        device=base.device,
    )
    seconds: dict[str, float] = {}
    try:
        with _ProgressBar(shown=progress) as bar, _timed(seconds, "training"):
            task = fine_tune(entry, exemplars, embeddings, base, bank=engine.bank)
            adapter, curve = _train(engine, task, bar)
        with _ProgressBar(shown=progress) as bar, _timed(seconds, "sampling"):
            engine.bank.load(1, adapter)
            rows = [
                row
                for slot in (0, 1)
                for row in comparison_rows(comparison, evaluation, embeddings, base, slot=slot)
            ]
            report = bar.task("sampling", len(rows))
            images = base.sample_rows(rows, engine.bank, height=side, width=side, progress=report)
            before, after = images.split(len(comparison))
    finally:
        engine.bank.remove()
    with _timed(seconds, "scoring"):
        card = score_comparison(
            comparison,
            entry.name,
            before=before,
            after=after,
            exemplars=(exemplars.training, exemplars.held_out),
            decoded=decoded_exemplars(base, exemplars),
            evaluation=evaluation,
            gate=gate,
        )
    digests = exemplar_set.file_digests
    record = correction_record(
        entry,
        base.spec,
        comparison,
        work_id=entry.work_id(base.spec.identity, list(digests.values()), evaluation, gate),
        evaluation=evaluation,
        gate=gate,
        exemplar_digests=digests,
        code=code_version(),
        status="corrected" if card.verdict.passed else "rejected",
        adapter_sha256=hashlib.sha256(adapter_bytes(adapter)).hexdigest(),
        scorecard=card,
        curve=[asdict(report) for report in curve],
        hard_negatives=comparison.negatives,
        seconds={name: round(value, 2) for name, value in seconds.items()},
    )
    return Correction(entry, adapter, comparison, before, after, exemplars, record)


def score_comparison(
    comparison: Comparison,
    name: str,
    *,
    before: Tensor,
    after: Tensor,
    exemplars: tuple[Tensor, Tensor],
    decoded: tuple[Tensor, Tensor],
    evaluation: EvaluationSettings,
    gate: GateThresholds,
) -> Scorecard:
    """The scorecard of all images of ``comparison``, rounded to 8 bits as the record's PNG files hold them.

    Args:
        name: Of the correction.
        before: ``[N, 3, H, W]``, values 0 to 1: the base's images of all rows; ``after`` those with the adapter.
        exemplars: Training and held-out exemplars.
        decoded: The same after the base's VAE.
    """
    before, after = as_stored(before), as_stored(after)
    return score(
        prompt_name=name,
        base=comparison.split(before)[0],
        corrected=comparison.split(after)[0],
        training=as_stored(exemplars[0]),
        held_out=as_stored(exemplars[1]),
        guards=comparison.guard_images(before, after),
        negatives=comparison.negative_images(before, after),
        pair_seeds=[seed for _, seed in comparison.own],
        decoded_exemplars=decoded,
        settings=evaluation,
        thresholds=gate,
    )


def _with_hyperparameters(
    prompt: FailingPrompt, changes: HyperParameters | Mapping[str, Any] | None
) -> FailingPrompt:
    if changes is None:
        return prompt
    if not isinstance(changes, HyperParameters):
        changes = HyperParameters.model_validate({**dict(prompt.hyperparameters), **changes})
    return FailingPrompt.model_validate({**dict(prompt), "hyperparameters": changes})


def _train(engine: Engine, task: FineTune, bar: _ProgressBar) -> tuple[Adapter, list[StepReport]]:
    """The trained adapter and the reports of its steps; raises :class:`UserError` where it diverged."""
    report = bar.task("training", task.hyperparameters.steps)
    engine.admit(task)
    while engine.active:
        newest = engine.step().get(task.name)
        if newest is not None:
            report(newest.step, f"loss {newest.loss:.4f}")
    if engine.failures:
        raise UserError(f"{task.name}: {engine.failures[0].reason}")
    curve = engine.history(task.name)
    return engine.release(task.name), curve


class _ProgressBar:
    """A bar on the terminal or in the notebook, or nothing where it is not ``shown``."""

    def __init__(self, *, shown: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[detail]}"), disable=not shown)

    def __enter__(self) -> _ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def task(self, name: str, total: int) -> Callable[..., None]:
        """Starts a bar of ``total`` steps; the function that is returned is told the number done, and a detail."""
        number = self._bar.add_task(name, total=total, detail="")

        def update(done: int, detail: str = "") -> None:
            self._bar.update(number, completed=done, detail=detail)

        return update


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started
