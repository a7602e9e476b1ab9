"""The model card of an adapter in Markdown: what it fixes, the gate's verdict, figures, origin and how to load it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from corrector.evaluation.scorecard import Scorecard
from corrector.preference.attached import AttachedSurvey
from corrector.record.correction_record import CorrectionRecord
from corrector.report.provenance import COLUMNS, source_rows, sources_text
from corrector.report.survey_texts import survey_texts
from corrector.report.verdict_texts import (
    NOT_JUDGED,
    grade_text,
    guards_not_drawn,
    imported_text,
    looks_text,
    negatives_not_drawn,
)

_LOADING = """\
## Loading

From the registry, with MLflow:

    import mlflow, torch
    dtype = torch.float32  # torch.bfloat16 on a GPU
    pipeline = mlflow.diffusers.load_model("models:/{name}@champion").load_pipeline(torch_dtype=dtype)

Where the base lies elsewhere on your machine, `load_pipeline(base_model=FOLDER)`. From a folder, with diffusers alone:

    pipeline = diffusers.StableDiffusion3Pipeline.from_pretrained(BASE, torch_dtype=dtype)
    pipeline.load_lora_weights(FOLDER)  # holds pytorch_lora_weights.safetensors

Check the weights against the SHA-256 above before you use them; `python -m corrector.registry export` does.
"""

_LICENCE = """\
An adapter is of no use without its base, and the licence of the base ({base}) holds for both and for the images that they
make. The exemplars belong to whoever gave them."""


def model_card(record: CorrectionRecord, name: str, survey: AttachedSurvey | None = None) -> str:
    """The card with the front matter that model hubs read; text of users is escaped.

    Args:
        name: Name of the registered model.
        survey: What people and a judge prefer, where it was asked.
    """
    front = {
        "base_model": record.base_reference,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "instance_prompt": record.prompt,
        "tags": ["lora", "stable-diffusion-3", "text-to-image", "diffusers"],
    }
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {escape(record.name)}",
        _summary(record),
        _purpose(record),
        _verdict(record),
        _survey(survey) if survey else "",
        _figures(record.scorecard) if record.scorecard else "",
        _exemplars(record),
        _origin(record),
        _LOADING.strip().format(name=name),
        f"## Licence\n\n{_LICENCE.format(base=escape(record.base_reference))}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(record: CorrectionRecord) -> str:
    if record.imported is not None:
        return (
            f"A LoRA adapter for one prompt of {escape(record.base_name)}, {escape(imported_text(record))}."
        )
    return f"A LoRA adapter that corrects one prompt at which {escape(record.base_name)} fails."


def _purpose(record: CorrectionRecord) -> str:
    lines = ["## What it fixes", "", f"- prompt: {escape(record.prompt)}"]
    lines += [f"- paraphrase: {escape(str(text))}" for text in record.entry.get("paraphrases") or ()]
    lines += [f"- not for: {escape(str(text))}" for text in record.entry.get("hard_negatives") or ()]
    owner = record.entry.get("owner")
    if owner:
        lines.append(f"- for: {escape(str(owner))}")
    guards = record.entry.get("guard_prompts") or ()
    if guards:
        lines.append(f"- must not change: {', '.join(escape(str(text)) for text in guards)}")
    return "\n".join(lines)


def _verdict(record: CorrectionRecord) -> str:
    if record.scorecard is None:
        return f"## Verdict\n\n{NOT_JUDGED}"
    passed = record.scorecard.verdict.passed
    title = "The gate passed it." if passed else "The gate did **not** pass it."
    return "\n".join(["## Verdict", "", title, "", verdict_text(record)])


def _survey(survey: AttachedSurvey) -> str:
    lines = [f"- {source}: {escape(text)}" for source, text in survey_texts(survey)]
    return "\n".join(["## What people and judges prefer", "", *lines])


def _figures(card: Scorecard) -> str:
    rows = [["figure", "base", "corrected", "difference [95 % interval]", "n"]]
    rows += [
        [each.name, each.base_text, each.corrected_text, each.change_text, each.n_text]
        for each in card.figures()
    ]
    return (
        "## Figures\n\nBase and corrected with the same prompts and seeds, against held-out exemplars.\n\n"
        + _table(rows)
    )


def _exemplars(record: CorrectionRecord) -> str:
    if not record.exemplars:
        return ""
    table = _table([COLUMNS, *source_rows(record.exemplars)])
    return f"## Exemplars\n\n{escape(sources_text(record.exemplars))}\n\n{table}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """The first row has the headings."""
    lines = ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _origin(record: CorrectionRecord) -> str:
    facts: dict[str, Any] = {
        "base": record.base_reference,
        "base revision": record.base_revision,
        "weights' SHA-256": record.adapter_sha256,
        "work": record.work_id,
        "made": record.created.isoformat(),
        "code": record.lineage.get("code_version"),
        **{f"imported {name}": value for name, value in (record.imported or {}).items()},
        **(record.entry.get("hyperparameters") or {}),
    }
    lines = [
        f"- {escape(str(name))}: {escape(str(value))}" for name, value in facts.items() if value is not None
    ]
    return "\n".join(["## Origin", "", *lines, "", "Seeds and packages: record.json."])


def verdict_text(record: CorrectionRecord) -> str:
    """In Markdown the grade, the gate's checks, those that failed first, and what the verdict cannot know."""
    card = record.scorecard
    if card is None:
        return ""
    checks = [
        f"- {'passed' if check.passed else '**not passed**'}: {escape(check.name)}: {escape(check.detail)}"
        for check in sorted(card.verdict.reasons, key=lambda check: check.passed)
    ]
    grade, _, meaning = grade_text(card).partition(": ")
    parts = [
        f"**{grade}**: {escape(meaning)}" if grade else "",
        escape(looks_text(card)),
        "\n".join(checks),
        escape(guards_not_drawn(record)),
        escape(negatives_not_drawn(record)),
    ]
    if card.verdict.unknown:
        parts.append("What this verdict cannot know:")
        parts.append("\n".join(f"- {escape(text)}" for text in card.verdict.unknown))
    return "\n\n".join(part for part in parts if part)


def escape(text: str) -> str:
    """Text of users inside Markdown, on one line."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|&~])", r"\\\1", " ".join(text.split()))
