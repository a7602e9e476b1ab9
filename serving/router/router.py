"""Router: selects the adapter for a prompt, or the base."""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from corrector.values import normalised
from serving.catalogue.snapshot import ServedAdapter, Snapshot
from serving.router.decision import Decision
from serving.router.embedding import DIMENSIONS, Embedder
from serving.router.prompt_classifier import RegisteredPrompts, closest
from serving.router.traffic import served
from serving.router.weights import classifier_weights
from serving.router.word_matching import Prompt
from serving.settings import RouterSettings

_COMPARED = 2
"""Adapters, the nearest by the sentences' cosine, whose prompts are compared word by word."""
_REMEMBERED = 512
"""Prompts of requests that are not read again; one takes about 30 KiB, and 300 KiB at most."""
_REBUILD_SECONDS = 5.0
"""Between two rebuilds of the table while registered prompts are read."""
_MAX_PROMPT_CHARS = 1000
"""Longest registered prompt (corrector.prompts.failing_prompt); a longer prompt says more than any of them."""


@dataclass(frozen=True, eq=False)
class _Table:
    """The data for decisions; immutable, so that `route` can read one table while `update` builds the next.

    Attributes:
        names: Adapters whose prompts are read, with their `prompts`.
        sentences: `[T, 384]`, sentence vectors of all registered texts; `owners` `[T]` are indices of `names`.
    """

    snapshot: Snapshot
    exact: Mapping[str, tuple[str, ...]]
    paraphrases: Mapping[str, tuple[str, ...]]
    guards: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...]
    prompts: tuple[RegisteredPrompts, ...]
    sentences: NDArray[np.float32]
    owners: NDArray[np.int64]


@dataclass(frozen=True)
class _Candidate:
    """An adapter that accepts the prompt."""

    name: str
    route: Literal["exact", "paraphrase", "classifier"]
    logit: float = np.inf


@dataclass(frozen=True)
class _Scores:
    """The results of the classifier: the adapters that accept the prompt, and the nearest one.

    Attributes:
        refusal: Why the classifier refuses the nearest adapter, or why it was not asked.
    """

    candidates: tuple[_Candidate, ...] = ()
    nearest: _Candidate | None = None
    refusal: str = ""


class Router:
    """Routes prompts to adapters: by registered prompts, then their paraphrases, then the classifier; all others to the base.

    Thread-safe, also while `update` runs.

    Args:
        snapshot: The served adapters. The constructor reads and embeds their registered prompts, in about 5 ms a text.
    """

    def __init__(
        self, snapshot: Snapshot, embedder: Embedder, settings: RouterSettings | None = None
    ) -> None:
        self._embedder = embedder
        self._asked = lru_cache(_REMEMBERED)(lambda text: Prompt.of(text, embedder))
        self._settings = settings or RouterSettings()
        self._reading = threading.Lock()
        self._rebuilding = threading.Lock()
        self._prompts: dict[str, Prompt] = {}
        """Registered texts that are read; guarded by `_rebuilding`."""
        self._table = _table(Snapshot(), {})
        self.update(snapshot)

    @property
    def snapshot(self) -> Snapshot:
        return self._table.snapshot

    def update(self, snapshot: Snapshot) -> None:
        """Route by `snapshot`, and read the prompts that it needs."""
        self.apply(snapshot)
        self.read_prompts()

    def apply(self, snapshot: Snapshot | None = None) -> None:
        """Route by `snapshot` (None: the present one) with the prompts that are read, without waiting for others."""
        with self._rebuilding:
            snapshot = snapshot or self._table.snapshot
            needed = {text for adapter in snapshot.adapters.values() for text in _texts(adapter)}
            self._prompts = {text: prompt for text, prompt in self._prompts.items() if text in needed}
            self._table = _table(snapshot, self._prompts)

    def read_prompts(self) -> None:
        """Read the missing prompts of the present snapshot, in the caller's thread; every few seconds, new ones are used."""
        with self._reading:
            rebuilt = time.monotonic()
            while (text := self._unread()) is not None:
                prompt = Prompt.of(text, self._embedder)
                with self._rebuilding:
                    self._prompts[text] = prompt
                if time.monotonic() - rebuilt > _REBUILD_SECONDS:
                    self.apply()
                    rebuilt = time.monotonic()
            self.apply()

    def _unread(self) -> str | None:
        """A registered text of the present snapshot that is not read."""
        with self._rebuilding:
            adapters = self._table.snapshot.adapters.values()
            return next((t for adapter in adapters for t in _texts(adapter) if t not in self._prompts), None)

    def route(self, prompt: str, *, user: str) -> Decision:
        """Select the adapter for a prompt.

        Args:
            user: Determines champion or challenger; for anonymous users, the request's id.
        """
        table = self._table
        key = normalised(prompt)
        registered = _registered(table, key)
        guarded = set(table.guards.get(key, ()))
        scores = _Scores()
        # A registered text decides without the classifier.
        settled = {*guarded, *(candidate.name for candidate in registered)}
        if not any(_is_live(table, name) for name in settled):
            scores = self._scores(table, prompt, settled)
        live = [c for c in (*registered, *scores.candidates) if _is_live(table, c.name)]
        chosen, reason = _chosen(table, live, self._settings.ambiguity)
        shadow = tuple(
            served(table.snapshot.adapters[candidate.name], user)[0]
            for candidate in (*registered, *scores.candidates)
            if not _is_live(table, candidate.name) and (chosen is None or _rank(candidate) >= _rank(chosen))
        )
        if chosen is None:
            nearest = scores.nearest
            decision = Decision(
                "base", None, reason or _why_base(table, guarded, registered, scores), shadow=shadow
            )
        else:
            nearest = chosen if chosen.route == "classifier" else None
            identity, alias = served(table.snapshot.adapters[chosen.name], user)
            decision = Decision(chosen.route, identity, reason, alias, shadow=shadow)
        if nearest is None:
            return decision
        return replace(decision, score=_probability(nearest.logit), threshold=_probability(self._threshold))

    def _scores(self, table: _Table, prompt: str, settled: set[str]) -> _Scores:
        if not table.names:
            return _Scores(refusal="no corrected prompt but the registered ones is known")
        if len(prompt) > _MAX_PROMPT_CHARS:
            return _Scores(
                refusal=f"it has more than {_MAX_PROMPT_CHARS} characters, and only registered prompts may"
            )
        asked = self._asked(prompt)
        found = [
            (_Candidate(table.names[index], "classifier", verdict.logit), verdict.reason)
            for place, index in enumerate(_nearest(table, asked))
            if table.names[index] not in settled
            for verdict in (closest(table.prompts[index], asked, explain=place == 0),)
        ]
        candidates = tuple(candidate for candidate, _ in found if candidate.logit >= self._threshold)
        if candidates or not found:
            return _Scores(candidates, max(candidates, key=lambda each: each.logit, default=None))
        return _Scores((), *found[0])

    @property
    def _threshold(self) -> float:
        return classifier_weights().threshold + self._settings.caution


def _texts(adapter: ServedAdapter) -> tuple[str, ...]:
    return (adapter.prompt, *adapter.paraphrases, *adapter.guard_prompts, *adapter.hard_negatives)


def _table(snapshot: Snapshot, prompts: Mapping[str, Prompt]) -> _Table:
    adapters = snapshot.adapters.values()
    # Of two adapters for one prompt the newer one is used.
    newest = sorted(adapters, key=lambda adapter: (-adapter.champion.created.timestamp(), adapter.name))
    read = [
        (
            adapter.name,
            RegisteredPrompts.of(
                adapter.prompt, adapter.paraphrases, adapter.guard_prompts, adapter.hard_negatives, prompts
            ),
        )
        for adapter in sorted(adapters, key=lambda adapter: adapter.name)
        if prompts.keys() >= set(_texts(adapter))
    ]
    owners = [(index, text.sentence) for index, (_, each) in enumerate(read) for text in each.same]
    return _Table(
        snapshot=snapshot,
        exact=_index((adapter.name, (adapter.prompt,)) for adapter in newest),
        paraphrases=_index((adapter.name, adapter.paraphrases) for adapter in newest),
        guards=_index(
            (adapter.name, (*adapter.guard_prompts, *adapter.hard_negatives)) for adapter in newest
        ),
        names=tuple(name for name, _ in read),
        prompts=tuple(each for _, each in read),
        sentences=np.array([sentence for _, sentence in owners], np.float32).reshape(-1, DIMENSIONS),
        owners=np.array([index for index, _ in owners], np.int64),
    )


def _nearest(table: _Table, asked: Prompt) -> list[int]:
    """Indices of the `_COMPARED` adapters with the text nearest to the prompt, the nearest first."""
    order = np.argsort(-(table.sentences @ asked.sentence), kind="stable")
    return list(dict.fromkeys(table.owners[order].tolist()))[:_COMPARED]


def _index(texts: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    """Names of adapters by their normalised texts."""
    found: dict[str, tuple[str, ...]] = {}
    for name, prompts in texts:
        for key in dict.fromkeys(map(normalised, prompts)):
            found[key] = (*found.get(key, ()), name)
    return found


def _registered(table: _Table, key: str) -> list[_Candidate]:
    return [
        *(_Candidate(name, "exact") for name in table.exact.get(key, ())),
        *(_Candidate(name, "paraphrase") for name in table.paraphrases.get(key, ())),
    ]


def _is_live(table: _Table, name: str) -> bool:
    return table.snapshot.adapters[name].traffic.mode == "live"


def _rank(candidate: _Candidate) -> tuple[int, float]:
    return {"exact": 2, "paraphrase": 1, "classifier": 0}[candidate.route], candidate.logit


def _chosen(table: _Table, candidates: list[_Candidate], ambiguity: float) -> tuple[_Candidate | None, str]:
    """The adapter for the prompt, and why; None with a reason where two are equally near."""
    if not candidates:
        return None, ""
    # Sorting is stable: among the registered, the newer adapter stays first.
    best, *rest = sorted(candidates, key=_rank, reverse=True)
    prompt = table.snapshot.adapters[best.name].prompt
    if best.route == "exact":
        return best, f"it is the prompt that {best.name} corrects"
    if best.route == "paraphrase":
        return best, f'it is registered with {best.name} as a paraphrase of "{prompt}"'
    if rest and best.logit - rest[0].logit < ambiguity:
        return (
            None,
            f"{best.name} and {rest[0].name} are both near, and neither is nearer: nothing is corrected",
        )
    return best, f'it means what "{prompt}" means, as the classifier has it'


def _why_base(table: _Table, guarded: set[str], registered: list[_Candidate], scores: _Scores) -> str:
    if guarded:
        return f"it is a guard prompt or hard negative of {', '.join(sorted(guarded))}, which the base draws"
    shadowed = next(iter(registered), None) or (scores.nearest if scores.candidates else None)
    if shadowed is not None:
        prompt = table.snapshot.adapters[shadowed.name].prompt
        return f'nearest is {shadowed.name}, "{prompt}", which is in shadow mode'
    if scores.nearest is None:
        return scores.refusal
    prompt = table.snapshot.adapters[scores.nearest.name].prompt
    return f'nearest is {scores.nearest.name}, "{prompt}", but {scores.refusal}'


def _probability(logit: float) -> float:
    return float(0.5 * (1.0 + np.tanh(0.5 * logit)))
