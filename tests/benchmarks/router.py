"""Precision and recall of the router on prompts that it was not made with: `python -m tests.benchmarks.router`.

world: captions of the embedded world that the batch file jobs/examples/people.yaml does not register. Where a caption means
what a registered prompt means (same subject, pose and place; a person's or car's colour is free), that adapter is right; for
all other captions the base is.
development, natural: development_prompts.yaml and natural_prompts.yaml, written by hand; each says itself how, and what for.

Precision is the share of corrected prompts that went where they should, recall the share of prompts to be corrected that did.
Writes evaluation.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch
import yaml

from corrector.values import normalised
from serving.router.embedding import Embedder
from serving.router.router import Router
from tests.support.paths import EXAMPLES
from tests.support.snapshots import Registered, adapter, snapshot
from tests.world.scenes import Scene, canonical_prompt, caption, paraphrases, scenes, shown_colour

_HERE = Path(__file__).parent / "router_prompts"
_BATCH = EXAMPLES / "people.yaml"
RESULTS = _HERE / "evaluation.json"
_CAPTIONS_PER_SCENE = 12


@dataclass(frozen=True)
class Case:
    """A prompt, and the adapter that it should go through; None for the base."""

    prompt: str
    expected: str | None
    near: str
    """The adapter to whose prompt it is near, for the report."""


@dataclass
class Counts:
    """What became of prompts."""

    right: int = 0
    wrong: int = 0
    missed: int = 0
    mistakes: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """1 where nothing was corrected."""
        corrected = self.right + self.wrong
        return self.right / corrected if corrected else 1.0

    @property
    def recall(self) -> float:
        """1 where there was nothing to correct."""
        wanted = self.right + self.missed
        return self.right / wanted if wanted else 1.0


@dataclass(frozen=True)
class Evaluation:
    """Counts in all, and by the adapter that a prompt is near to."""

    total: Counts
    by_adapter: dict[str, Counts]


def world() -> tuple[list[Registered], list[Case]]:
    """The four registered prompts of people.yaml, and the world's other captions."""
    batch = yaml.safe_load(_BATCH.read_text(encoding="utf-8"))
    registered = [
        Registered(entry["name"], entry["prompt"], entry["paraphrases"], entry["guard_prompts"])
        for entry in batch["prompts"]
    ]
    names = {entry.prompt: entry.name for entry in registered}
    known = {
        normalised(text)
        for entry in registered
        for text in (entry.prompt, *entry.paraphrases, *entry.guard_prompts)
    }
    cases: dict[str, Case] = {}
    for scene in scenes():
        name = names.get(canonical_prompt(scene))
        for text in (canonical_prompt(scene), *paraphrases(scene), *_captions(scene)):
            if normalised(text) not in known:
                cases.setdefault(normalised(text), Case(text, name, name or "elsewhere"))
    return registered, list(cases.values())


def _captions(scene: Scene) -> list[str]:
    rng = Random(canonical_prompt(scene))
    return [caption(scene, rng, shown_colour(scene, seed)) for seed in range(_CAPTIONS_PER_SCENE)]


def handwritten(file: str) -> tuple[list[Registered], list[Case]]:
    """The prompts of natural_prompts.yaml or development_prompts.yaml."""
    written = yaml.safe_load((_HERE / file).read_text(encoding="utf-8"))
    registered = [
        Registered(entry["name"], entry["prompt"], entry["paraphrases"], entry["guard_prompts"])
        for entry in written["adapters"]
    ]
    cases = [
        Case(text, entry["name"] if kind == "same" else None, entry["name"])
        for entry in written["adapters"]
        for kind in ("same", "different")
        for text in entry[kind]
    ]
    return registered, cases + [Case(text, None, "elsewhere") for text in written["unrelated"]]


def evaluate(router: Router, embedder: Embedder, cases: Sequence[Case]) -> Evaluation:
    """Routes every case; `embedder`, which is the router's, embeds them in batches before."""
    embedder.embed([case.prompt for case in cases])
    total = Counts()
    by_adapter: dict[str, Counts] = {}
    for case in cases:
        decision = router.route(case.prompt, user="evaluation")
        chosen = decision.adapter.name if decision.adapter is not None else None
        for counts in (total, by_adapter.setdefault(case.near, Counts())):
            if chosen is not None and chosen == case.expected:
                counts.right += 1
                continue
            if chosen is not None:
                counts.wrong += 1
            if case.expected is not None:
                counts.missed += 1
            if chosen != case.expected:
                counts.mistakes.append(f"{case.prompt} -> {chosen or 'base'}: {decision.reason}")
    return Evaluation(total, dict(sorted(by_adapter.items())))


def router_for(registered: Sequence[Registered], embedder: Embedder) -> Router:
    """A router that serves these, with the settings that the endpoint has."""
    return Router(snapshot(adapter(entry) for entry in registered), embedder)


def summary(counts: Counts) -> dict[str, float | int]:
    """As it is kept."""
    return {
        "precision": round(counts.precision, 4),
        "recall": round(counts.recall, 4),
        "right": counts.right,
        "wrong": counts.wrong,
        "missed": counts.missed,
    }


def main() -> None:
    """Prints both tables and every mistake, and keeps the figures."""
    torch.set_num_threads(1)
    embedder = Embedder()
    results = {}
    sets = {
        "development": handwritten("development_prompts.yaml"),
        "world": world(),
        "natural": handwritten("natural_prompts.yaml"),
    }
    for title, (registered, cases) in sets.items():
        router = router_for(registered, embedder)
        evaluation = evaluate(router, embedder, cases)
        headless = [entry.name for entry in registered if router.head(entry.name) is None]
        print(
            f"{title}: {len(cases)} prompts, {len(registered)} adapters, without a head: {', '.join(headless) or 'none'}"
        )
        for name, counts in (*evaluation.by_adapter.items(), ("in all", evaluation.total)):
            print(
                f"  {name:22} precision {counts.precision:7.2%}   recall {counts.recall:7.2%}   "
                f"right {counts.right:3}  wrong {counts.wrong:3}  missed {counts.missed:3}"
            )
        for mistake in evaluation.total.mistakes if "--mistakes" in sys.argv else ():
            print("   ", mistake)
        results[title] = {
            "prompts": len(cases),
            "without_head": headless,
            "total": summary(evaluation.total),
            "adapters": {name: summary(counts) for name, counts in evaluation.by_adapter.items()},
        }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
