"""Writes the record of one prompt: the files of its comparison, and its lineage."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corrector.adapters import Adapter, save_adapter
from corrector.base import BaseSpec
from corrector.evaluation import Comparison
from corrector.exemplars.provenance import ExemplarSource, used_digests
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds
from corrector.record.correction_record import ADAPTER_FOLDER, CorrectionRecord

if TYPE_CHECKING:
    from torch import Tensor

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "ray")


def write_comparison(
    folder: Path,
    comparison: Comparison,
    *,
    adapter: Adapter,
    training: Tensor | None,
    held_out: Tensor | None,
    before: Tensor,
    after: Tensor,
) -> None:
    """Writes adapter and images of ``comparison`` into a record folder; ``CorrectionRecord.save`` completes it.

    Args:
        training: Training exemplars ``[N, 3, H, W]``, values 0 to 1, or None; so are all images.
        before: The base's images of all rows of ``comparison``; ``after``: the same rows with the adapter.
    """
    save_adapter(adapter, folder / ADAPTER_FOLDER)
    own_before, guards_before, negatives_before = comparison.split(before)
    own_after, guards_after, negatives_after = comparison.split(after)
    CorrectionRecord.write_images(
        folder,
        exemplars=training,
        held_out=held_out,
        before=own_before,
        after=own_after,
        guards=list(zip(guards_before, guards_after, strict=True)),
        negatives=list(zip(negatives_before, negatives_after, strict=True)),
    )


def correction_record(
    entry: FailingPrompt,
    spec: BaseSpec,
    comparison: Comparison,
    *,
    work_id: str,
    evaluation: EvaluationSettings,
    gate: GateThresholds,
    exemplars: Sequence[ExemplarSource],
    code: str,
    imported: Mapping[str, Any] | None = None,
    **outcome: Any,
) -> CorrectionRecord:
    """The record of ``entry``; ``outcome`` are its remaining fields, ``code`` is a :func:`code_version`.

    Args:
        exemplars: Those of training, those held out, and those that were dropped.
        imported: What is known of the file of an adapter that was not trained here.
    """
    trained = {
        "training_seed": entry.hyperparameters.seed,
        "hyperparameters": entry.hyperparameters.model_dump(mode="json"),
    }
    left_out = (
        {"hyperparameters", *(() if exemplars else ("exemplars", "exemplar_fit"))} if imported else None
    )
    return CorrectionRecord(
        name=entry.name,
        prompt=entry.prompt,
        work_id=work_id,
        entry=entry.model_dump(mode="json", exclude=left_out),
        base_reference=spec.reference,
        base_name=spec.name,
        base_revision=spec.revision,
        seeds=tuple(seed for _, seed in comparison.own),
        sampled_prompts=tuple(text for text, _ in comparison.own),
        guards=comparison.guards,
        exemplars=tuple(exemplars),
        lineage={
            "exemplars": used_digests(exemplars),
            "code_version": code,
            "precision": spec.precision,
            **({"imported": dict(imported)} if imported else trained),
            "evaluation": evaluation.model_dump(mode="json"),
            "gate": gate.model_dump(mode="json"),
            "packages": {name: found for name in _PACKAGES if (found := _installed(name)) is not None},
        },
        **outcome,
    )


def code_version() -> str:
    """The commit of the checkout, with "+changes" if it has changes; without a checkout, as in an image or a job's working
    directory, the package's version and a digest of the library's source."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return f"{_installed('prompt-corrector') or 'unknown'}+source.{source_sha256('corrector')[:12]}"


def source_sha256(*packages: str) -> str:
    """SHA-256, in hexadecimal digits, of the names and contents of the Python files of these packages."""
    digest = hashlib.sha256()
    for package in packages:
        found = find_spec(package)
        assert found is not None and found.origin is not None
        folder = Path(found.origin).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
