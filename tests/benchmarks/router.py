"""Precision and recall of the router on prompts that it was not made with: `python -m tests.benchmarks.router`.

world: captions of the embedded world that the batch file jobs/examples/people.yaml does not register. Where a caption means
what a registered prompt means (same subject, pose and place; a person's or car's colour is free), that adapter is right; for
all other captions the base is.
development, natural: development_prompts.yaml and natural_prompts.yaml, written by hand; each says itself how, and what for.
everyday-development, everyday, more-everyday, third-everyday: everyday_prompts.yaml in two halves and the files of that name,
36 subjects that no word list here was made for; each was put aside at first, today all are development data.
unseen: unseen_prompts.yaml, 24 subjects that were looked at once.

Precision is the share of corrected prompts that went where they should, recall the share of prompts to be corrected that did.
Writes evaluation.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import Literal

import torch
import yaml

from corrector.diagnosis.failure_rate import wilson
from corrector.values import normalised
from serving.router.embedding import Embedder
from serving.router.router import Router
from tests.support.paths import EXAMPLES
from tests.support.snapshots import Registered, adapter, snapshot
from tests.world.scenes import Scene, canonical_prompt, caption, paraphrases, scenes, shown_colour

HERE = Path(__file__).parent / "router_prompts"
_BATCH = EXAMPLES / "people.yaml"
RESULTS = HERE / "evaluation.json"
_CAPTIONS_PER_SCENE = 12
_SUBJECTS = (
    "a man",
    "a woman",
    "two dogs",
    "a cat",
    "an astronaut",
    "a child",
    "a knight",
    "a nurse",
    "a horse",
    "a robot",
)
_ACTIONS = (
    "lying",
    "running",
    "reading a book",
    "jumping",
    "playing chess",
    "sleeping",
    "dancing",
    "eating an apple",
    "waving",
    "hiding",
)
_PLACES = ("on the grass", "in a kitchen", "on a beach", "in the snow", "under a bridge")


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


def handwritten(
    file: str, half: Literal["development", "put aside"] | None = None
) -> tuple[list[Registered], list[Case]]:
    """The prompts of a file of `router_prompts`; of everyday_prompts.yaml one half, by a hash of the prompt."""
    written = yaml.safe_load((HERE / file).read_text(encoding="utf-8"))
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
    cases += [Case(text, None, "elsewhere") for text in written.get("unrelated", ())]
    return registered, [case for case in cases if half is None or _half(case.prompt) == half]


def drafted(file: str) -> tuple[list[Registered], list[Case]]:
    """As `handwritten`, and the adapters have the paraphrases and hard negatives that a language model drafted for them."""
    registered, cases = handwritten(file)
    drafts = {
        entry["name"]: entry
        for entry in yaml.safe_load((HERE / "drafts" / file).read_text(encoding="utf-8"))["adapters"]
    }
    return [
        replace(
            entry,
            paraphrases=(*entry.paraphrases, *drafts[entry.name]["same"]),
            hard_negatives=tuple(drafts[entry.name]["different"]),
        )
        for entry in registered
    ], cases


def _half(prompt: str) -> str:
    put_aside = hashlib.sha256(normalised(prompt).encode()).digest()[0] % 2
    return "put aside" if put_aside else "development"


def evaluate(router: Router, cases: Sequence[Case]) -> Evaluation:
    """Routes every case."""
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


SETS: dict[str, Callable[[], tuple[list[Registered], list[Case]]]] = {
    "development": partial(handwritten, "development_prompts.yaml"),
    "everyday-development": partial(handwritten, "everyday_prompts.yaml", "development"),
    "world": world,
    "natural": partial(handwritten, "natural_prompts.yaml"),
    "everyday": partial(handwritten, "everyday_prompts.yaml", "put aside"),
    "more-everyday": partial(handwritten, "more_everyday_prompts.yaml"),
    "third-everyday": partial(handwritten, "third_everyday_prompts.yaml"),
    "unseen": partial(handwritten, "unseen_prompts.yaml"),
    "unseen, drafted": partial(drafted, "unseen_prompts.yaml"),
}
"""Makes the prompts, by title; the router was fitted on all handwritten ones but "unseen"."""


def milliseconds(router: Router, cases: Sequence[Case]) -> list[float]:
    """Times of decisions about prompts that were not embedded before, sorted."""
    times = []
    for case in cases:
        started = time.perf_counter()
        router.route(case.prompt, user="benchmark")
        times.append(1000 * (time.perf_counter() - started))
    return sorted(times)


def many(count: int) -> list[Registered]:
    """`count` adapters for everyday scenes, each with two paraphrases and a guard prompt."""
    found = []
    for number, (who, action, place) in enumerate(islice(product(_SUBJECTS, _ACTIONS, _PLACES), count)):
        prompt = f"{who} {action} {place}"
        others = [f"photo of {prompt}", f"{place}, {who} {action}"]
        found.append(Registered(f"scene-{number}", prompt, others, [f"{who} {place}"]))
    return found


def main() -> None:
    """Prints precision and recall of every set with their Wilson 95 % intervals, and the times; keeps the figures of all sets.

    With `--mistakes`, prints every mistake; with titles of sets, measures only those and keeps nothing.
    """
    torch.set_num_threads(1)
    embedder = Embedder()
    chosen = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    results: dict[str, object] = {}
    for title, prompts in SETS.items():
        if chosen and title not in chosen:
            continue
        registered, cases = prompts()
        evaluation = evaluate(router_for(registered, embedder), cases)
        print(f"{title}: {len(cases)} prompts, {len(registered)} adapters")
        for name, counts in (*evaluation.by_adapter.items(), ("in all", evaluation.total)):
            print(
                f"  {name:22} precision {counts.precision:7.2%} {_interval(counts.right, counts.wrong)}   "
                f"recall {counts.recall:7.2%} {_interval(counts.right, counts.missed)}   "
                f"right {counts.right:3}  wrong {counts.wrong:3}  missed {counts.missed:3}"
            )
        for mistake in evaluation.total.mistakes if "--mistakes" in sys.argv else ():
            print("   ", mistake)
        results[title] = {
            "prompts": len(cases),
            "total": summary(evaluation.total),
            "adapters": {name: summary(counts) for name, counts in evaluation.by_adapter.items()},
        }
    if chosen:
        return
    registered, near = drafted("unseen_prompts.yaml")
    for title, adapters, cases in (
        ("500 adapters", many(500), SETS["everyday-development"]()[1]),
        (f"{len(registered)} adapters with drafts", registered, near[::6]),
        ("these among 500", [*many(500 - len(registered)), *registered], near[1::6]),
    ):
        started = time.perf_counter()
        router = router_for(adapters, embedder)
        seconds = time.perf_counter() - started
        times = milliseconds(router, cases)
        print(
            f"{title}: their prompts are read in {seconds:.1f} s; a decision takes {times[len(times) // 2]:.1f} ms, "
            f"95 of 100 at most {times[len(times) * 95 // 100]:.1f} ms (one thread)"
        )
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def _interval(successes: int, failures: int) -> str:
    if successes + failures == 0:
        return "(none)"
    low, high = wilson(successes, successes + failures, 1.96)
    return f"({low:.0%} to {high:.0%})"


if __name__ == "__main__":
    main()
