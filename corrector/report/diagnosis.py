"""The page of a diagnosis: the ranked prompts, and their images with what the detector said of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from corrector.diagnosis import PromptDiagnosis, Verdict
from corrector.drawing import BLOCK_ROWS, Block
from corrector.exemplars import to_image
from corrector.report.images import InlineImage, inline_picture
from corrector.report.page import write_page
from corrector.report.prompts import Budget

_BADGES: dict[Verdict, str] = {"fails": "rejected", "holds": "corrected", "undecided": "failed"}
"""Verdict -> class of the style sheet."""
_STATES: Mapping[bool | None, tuple[str, str]] = {
    True: ("right", "✓"),
    False: ("wrong", "✗"),
    None: ("no verdict", "?"),
}


def write_diagnosis_page(
    diagnoses: Sequence[PromptDiagnosis],
    path: Path,
    *,
    title: str,
    job: Mapping[str, Any],
    notes: Sequence[str],
    kept: Callable[[Block], Tensor | None],
) -> Path:
    """Write one HTML file without scripts or references to anything outside; texts of users are escaped.

    A page of many prompts shows a part of each prompt's images, wrong ones first.

    Args:
        diagnoses: In the order of the page.
        job: Name -> value of facts about the run, for the top of the page.
        notes: Sentences about detectors that did not run or stopped.
        kept: The images `[N, 3, H, W]` in 0..1 of a block that was drawn; None where they are no longer kept.

    Returns:
        `path`.
    """
    budget = Budget.of(len(diagnoses))
    counts = Counter(each.verdict for each in diagnoses)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_page(
        path,
        "diagnosis.html.jinja",
        title=title,
        badges=_BADGES,
        tally=[(verdict, f"{counts[verdict]} {verdict}") for verdict in _BADGES if counts[verdict]],
        job=list(job.items()),
        notes=notes,
        views=[_view(each, budget, kept) for each in diagnoses],
    )


def _view(each: PromptDiagnosis, budget: Budget, kept: Callable[[Block], Tensor | None]) -> dict[str, Any]:
    images = []
    order = {False: 0, None: 1, True: 2}
    found = each.findings.get(each.detector or "", [])
    chosen = sorted(range(len(found)), key=lambda place: order[found[place].is_right])[: budget.pairs]
    blocks: dict[int, Tensor | None] = {}
    for place in chosen:
        first = place - place % BLOCK_ROWS
        if first not in blocks:
            blocks[first] = kept(each.rows[first : first + BLOCK_ROWS])
        block, finding, (text, seed) = blocks[first], found[place], each.rows[place]
        picture = (
            InlineImage(None, budget.longest, budget.longest, False)
            if block is None
            else inline_picture(to_image(block[place - first]), budget.longest)
        )
        state, mark = _STATES[finding.is_right]
        images.append(
            {
                "picture": picture,
                "state": state,
                "mark": mark,
                "seed": seed,
                "note": finding.note,
                "text": text if text != each.prompt else "",
            }
        )
    others = [(name, each.rate(name)) for name in each.findings if name != each.detector]
    return {
        "diagnosis": each,
        "rate": each.rate(),
        "failed": sum(each.failures()),
        "n": len(each.failures()),
        "others": others,
        "images": images,
        "hidden": len(found) - len(chosen),
    }
