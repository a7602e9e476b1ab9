"""Imports LoRA files that other programs trained: reads, draws, judges where there are exemplars, and registers them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.progress import Progress
from torch import Tensor, nn

from corrector.adapters import SD3_TARGETS, Adapter, LoraFile, adapter_bytes, layout_of, read_lora
from corrector.base import BaseSpec
from corrector.base.weights import transformer_skeleton
from corrector.errors import UserError
from corrector.evaluation import Comparison, FeatureMemory
from corrector.evaluation.verdicts import named_judge
from corrector.exemplars.files import printable
from corrector.files import file_sha256
from corrector.judging import checked_exemplars, judge_adapter, progress_bar
from corrector.loaded_base import Base
from corrector.prompt_inputs import ExemplarImages, side_of, texts_of
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds, HyperParameters
from corrector.record.correction_record import CorrectionRecord
from corrector.record.writing import code_version, correction_record, write_comparison
from corrector.registry.mlflow_run import REVIEW_PAGE
from corrector.registry.promotion import NOT_SERVED
from corrector.registry.registration import RegisteredVersion, register
from corrector.report import write_report

SHOWN_IMAGES = 8
"""Images of the prompt on each side that are drawn to look at, where nothing judges them."""

_GUARD_IMAGES = 2
_NO_EXEMPLARS = "(none)"
"""Stands in the entry's required field; the record leaves the field out."""
_WIDTHS = {
    1536: "Stable Diffusion 3 medium or 3.5 medium",
    2432: "Stable Diffusion 3.5 large",
    3072: "FLUX",
}


@dataclass(frozen=True)
class Imported:
    """A registered import; `notes` say what the user should know of file and exemplars, in sentences."""

    version: RegisteredVersion
    record: CorrectionRecord
    notes: tuple[str, ...]


def import_entry(
    prompt: str,
    *,
    name: str | None = None,
    paraphrases: Sequence[str] = (),
    guards: Sequence[str] = (),
    hard_negatives: Sequence[str] = (),
    exemplars: str | None = None,
    owner: str | None = None,
) -> FailingPrompt:
    """The entry of an adapter that was trained elsewhere.

    Raises:
        UserError: A text is empty, too long or twice there, or the name is none.
    """
    values: dict[str, Any] = {
        "prompt": prompt,
        "paraphrases": paraphrases,
        "guard_prompts": guards,
        "hard_negatives": hard_negatives,
        "exemplars": exemplars or _NO_EXEMPLARS,
        "owner": owner,
        "hyperparameters": HyperParameters(preservation="none"),
    }
    try:
        return FailingPrompt.model_validate(values | ({"name": name} if name is not None else {}))
    except ValidationError as failure:
        error = failure.errors(include_url=False)[0]
        field = ".".join(map(str, error["loc"]))
        raise UserError(f"{field}: {error.get('ctx', {}).get('message') or error['msg']}") from failure


def import_adapter(
    source: Path,
    entry: FailingPrompt,
    base: Base,
    *,
    tracking_uri: str | None,
    root: Path,
    evaluation: EvaluationSettings | None = None,
    gate: GateThresholds | None = None,
    images: int = SHOWN_IMAGES,
    alpha: float | None = None,
    without_text_encoders: bool = False,
    decisions: Path | None = None,
    accept_exemplars: bool = False,
    progress: bool = False,
) -> Imported:
    """Register the LoRA in `source` as an adapter for the prompt of `entry`.

    With exemplars it is drawn, scored and judged as `correct` judges what it trains; without, its status is "not judged" and
    a few images are drawn to look at. Layers that the file does not change, among those that the endpoint applies, get zeros.

    Args:
        source: A safetensors file, or a folder that diffusers or PEFT wrote.
        images: Pairs of images to draw of the prompt without exemplars; 0: none, and the base's weights are not read.
        alpha: See `read_lora`; so is `without_text_encoders`.
        decisions: The file of decisions about exemplars; those that it drops are left out.
        accept_exemplars: Use exemplars that curation would call not effective.

    Raises:
        AdapterError: The file is no LoRA of a Stable Diffusion 3.
        UserError: It does not fit the base, or the exemplars cannot be used.
        RegistryError: It cannot be registered.
    """
    read = read_lora(source, alpha=alpha, without_text_encoders=without_text_encoders)
    adapter, added = _fitted(read.adapter, base.spec, source)
    others = sorted({_end(path) for path in read.adapter.weights if not path.endswith(SD3_TARGETS)})
    origin = _origin(read, others)
    adapter = replace(adapter, metadata={"imported": origin["file"], "imported_sha256": origin["sha256"]})
    notes: tuple[str, ...] = ()
    if added:
        notes += (f"{added} of the attention's layers are not in the file; in the adapter they are zero",)
    if others:
        notes += (f"it also changes {', '.join(others)}: {NOT_SERVED}",)
    judged = entry.exemplars != _NO_EXEMPLARS
    evaluation = evaluation or EvaluationSettings()
    if not judged:
        own = {"images": max(images, 2), "guard_images": _GUARD_IMAGES, "hard_negatives": 0}
        evaluation = evaluation.model_copy(update=own)
    with tempfile.TemporaryDirectory() as temporary, progress_bar(shown=progress) as bar:
        folder = Path(temporary) / "record"
        work = _Import(entry, base, adapter, origin, evaluation, gate or GateThresholds(), folder, bar)
        if judged:
            record, doubts = work.judge(decisions, check=not accept_exemplars)
            notes += doubts
        else:
            record = work.draw(images)
        facts = {"base": record.base_name, "base revision": record.base_revision, "work": record.work_id}
        title = f"Review: {record.name}, imported"
        write_report([(folder, record)], folder / REVIEW_PAGE, title=title, job=facts)
        version = register(folder, tracking_uri=tracking_uri, root=root)
    return Imported(version, record, notes)


@dataclass(frozen=True)
class _Import:
    """An adapter that was read, on its way to a record in `folder`."""

    entry: FailingPrompt
    base: Base
    adapter: Adapter
    origin: Mapping[str, Any]
    evaluation: EvaluationSettings
    gate: GateThresholds
    folder: Path
    bar: Progress

    def judge(self, decisions: Path | None, *, check: bool) -> tuple[CorrectionRecord, tuple[str, ...]]:
        """The record with a scorecard, and notes on the exemplars."""
        entry, base = self.entry, self.base
        memory = FeatureMemory(judge=named_judge(self.evaluation.judge), cache=base.cache)
        remedy = "import again with --decisions FILE, or with --accept-exemplars"
        found = checked_exemplars(entry, base, memory, decisions, check=check, remedy=remedy)
        exemplars, seconds = ExemplarImages.of(found), dict[str, float]()
        embeddings = base.encode(texts_of(entry, self.evaluation))
        with base.bank(self.adapter) as bank:
            assert bank is not None
            judged = judge_adapter(
                entry,
                base,
                bank,
                exemplars,
                embeddings,
                memory=memory,
                evaluation=self.evaluation,
                gate=self.gate,
                bar=self.bar,
                seconds=seconds,
            )
        record = self._record(
            judged.comparison,
            judged.before,
            judged.after,
            exemplars=exemplars,
            sources=found.sources,
            digests=tuple(found.file_digests.values()),
            status=judged.status,
            scorecard=judged.card,
            hard_negatives=judged.comparison.negatives,
            seconds={name: round(value, 2) for name, value in seconds.items()},
        )
        return record, found.notes

    def draw(self, images: int) -> CorrectionRecord:
        """The record without a scorecard, with pairs of images of the prompt and of its guard prompts."""
        base, side = self.base, side_of(self.entry, self.base.spec)
        if not images:
            nothing = torch.empty(0, 3, side, side)
            return self._record(Comparison(()), nothing, nothing, status="not judged")
        comparison = Comparison.of(self.entry, self.evaluation)
        embeddings = base.encode(texts_of(self.entry, self.evaluation))
        task = self.bar.add_task("sampling", total=2 * len(comparison))
        with base.bank(self.adapter) as bank:
            rows = [row for slot in (0, 1) for row in base.rows(comparison.rows, embeddings, slot=slot)]
            drawn = base.sample_rows(
                rows,
                bank,
                height=side,
                width=side,
                progress=lambda done: self.bar.update(task, completed=done),
            )
        before, after = drawn.chunk(2)
        return self._record(comparison, before, after, status="not judged")

    def _record(
        self,
        comparison: Comparison,
        before: Tensor,
        after: Tensor,
        *,
        exemplars: ExemplarImages | None = None,
        sources: Sequence[Any] = (),
        digests: Sequence[str] = (),
        **outcome: Any,
    ) -> CorrectionRecord:
        """Write images, adapter and record into the folder."""
        write_comparison(
            self.folder,
            comparison,
            adapter=self.adapter,
            training=None if exemplars is None else exemplars.training,
            held_out=None if exemplars is None else exemplars.held_out,
            before=before,
            after=after,
        )
        digest = hashlib.sha256(adapter_bytes(self.adapter)).hexdigest()
        record = correction_record(
            self.entry,
            self.base.spec,
            comparison,
            work_id=self._work_id(digest, digests, len(comparison)),
            evaluation=self.evaluation,
            gate=self.gate,
            exemplars=sources,
            code=code_version(),
            imported=self.origin,
            adapter_sha256=digest,
            **outcome,
        )
        record.save(self.folder)
        return record

    def _work_id(self, digest: str, exemplars: Sequence[str], images: int) -> str:
        """An import of the same weights for the same prompt, with the same exemplars and images, is the same work."""
        work = self.entry.work_id(self.base.spec.identity, exemplars, self.evaluation, self.gate)
        return hashlib.sha256(json.dumps(["import", digest, work, images]).encode()).hexdigest()


def _origin(read: LoraFile, others: Sequence[str]) -> dict[str, Any]:
    left_out = f"{read.left_out} weights of text encoders" if read.left_out else None
    facts = {
        "file": printable(read.path.name),
        "sha256": file_sha256(read.path),
        "dialect": read.dialect,
        "alpha": read.alpha,
        "left_out": left_out,
        "other_layers": ", ".join(others) or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _fitted(adapter: Adapter, spec: BaseSpec, source: Path) -> tuple[Adapter, int]:
    """The adapter with zeros for layers that an endpoint applies and the file does not change, and their number.

    Raises:
        UserError: A layer is not there in the base, or has another size.
    """
    if adapter.base_revision not in (None, spec.revision):
        raise UserError(
            f"{source}: was trained on the base revision {adapter.base_revision}; {spec.reference} is {spec.revision}: "
            "name its own base with --base"
        )
    skeleton = transformer_skeleton(spec)
    linears = {path: each for path, each in skeleton.named_modules() if isinstance(each, nn.Linear)}
    for path, (down, up) in adapter.weights.items():
        linear = linears.get(path)
        if linear is None:
            raise UserError(
                f"{source}: changes {path}, which {spec.reference} does not have ({_sizes(linears)}); {_made_for(adapter)}"
            )
        if (down.shape[1], up.shape[0]) != (linear.in_features, linear.out_features):
            raise UserError(
                f"{source}: {path} has {down.shape[1]} inputs and {up.shape[0]} outputs, in {spec.reference} "
                f"{linear.in_features} and {linear.out_features}; {_made_for(adapter)}"
            )
    served = {target.path: target for target in layout_of(skeleton, adapter.rank, SD3_TARGETS).targets}
    down, up = next(iter(adapter.weights.values()))
    zeros = {
        path: (down.new_zeros(adapter.rank, target.inputs), up.new_zeros(target.outputs, adapter.rank))
        for path, target in served.items()
        if path not in adapter.weights
    }
    return replace(adapter, weights={**adapter.weights, **zeros}), len(zeros)


def _sizes(linears: Mapping[str, nn.Linear]) -> str:
    blocks = {path.split(".")[1] for path in linears if path.startswith("transformer_blocks.")}
    return f"{len(blocks)} blocks of width {linears['proj_out'].in_features}"


def _made_for(adapter: Adapter) -> str:
    """Which base the widths of attention layers belong to, and what to do."""
    widths = {down.shape[1] for path, (down, _) in adapter.weights.items() if ".attn." in path}
    known = next((name for width, name in _WIDTHS.items() if width in widths), None)
    found = f"layers {max(widths)} wide are those of {known}: " if known else ""
    return f"{found}it was made for another base; name that one with --base"


def _end(path: str) -> str:
    """A layer's path without its block: "ff.net.2"."""
    return path.split(".", 2)[2] if path.startswith("transformer_blocks.") else path
