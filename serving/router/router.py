"""Which adapter, if any, a prompt goes through."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from corrector.prompts.variations.reading import Reading, read
from serving.catalogue.snapshot import ServedAdapter, Snapshot
from serving.identity import AdapterIdentity
from serving.router.comparison import closest
from serving.router.decision import Decision
from serving.router.embedding import DIMENSIONS, Embedder
from serving.router.head import Head, RegisteredTexts, train_head
from serving.router.logistic import sigmoid
from serving.router.normalising import normalised
from serving.router.settings import RouterSettings
from serving.router.traffic import served

_log = logging.getLogger(__name__)
_OTHERS = 60
_COUNT_SECONDS = 5.0
"""Between two switches while heads are trained."""
_LONGEST = 1000
"""Characters of a registered prompt at most (corrector.prompts.batch); what is longer says more than any of them."""


@dataclass(frozen=True, eq=False)
class _Table:
    """Everything a decision needs, never changed: `route` works on one table even while `update` makes the next."""

    snapshot: Snapshot
    exact: Mapping[str, tuple[str, ...]]
    paraphrases: Mapping[str, tuple[str, ...]]
    guards: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...]
    heads: tuple[Head, ...]
    readings: tuple[tuple[Reading, ...], ...]
    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    thresholds: NDArray[np.float32]


@dataclass(frozen=True)
class _Candidate:
    """An adapter that would take the prompt."""

    name: str
    route: Literal["exact", "paraphrase", "head"]
    logit: float = np.inf
    threshold: float = -np.inf


@dataclass(frozen=True)
class _Scores:
    """What the heads say: who would take the prompt, and the nearest one, whether it would or not.

    Attributes:
        refusal: Why the nearest does not take the prompt, where its score alone would; or why no head was asked.
    """

    candidates: tuple[_Candidate, ...] = ()
    nearest: _Candidate | None = None
    refusal: str = ""


class Router:
    """Routes prompts to adapters: registered prompts, then registered paraphrases, then heads; all else to the base.

    Safe to use from several threads, also while `update` runs.

    Args:
        snapshot: What is served; heads are trained before this returns, 1 to 2 s for each that `settings.cache` lacks.
    """

    def __init__(
        self, snapshot: Snapshot, embedder: Embedder, settings: RouterSettings | None = None
    ) -> None:
        self._embedder = embedder
        self._settings = settings or RouterSettings()
        self._training = threading.Lock()
        self._switching = threading.Lock()
        self._heads: dict[str, Head] = {}
        """By the digest of the texts; only whoever holds `_switching` touches it."""
        self._table = _table(Snapshot(), {})
        self.update(snapshot)

    @property
    def snapshot(self) -> Snapshot:
        """That prompts are routed by."""
        return self._table.snapshot

    def update(self, snapshot: Snapshot) -> None:
        """Follows the registry. Registered prompts, versions and shares count at once; then the heads of new and changed
        prompts are trained, in the caller's thread. They count as they come, every few seconds, and never hold up another
        update: an adapter taken down meanwhile is not routed to."""
        self._switch(snapshot)
        with self._training:
            counted = time.monotonic()
            while (missing := self._without_head()) is not None:
                name, texts, others = missing
                digest = texts.digest(self._settings.head)
                head = self._trained(name, texts, digest, others)
                with self._switching:
                    self._heads[digest] = head
                if time.monotonic() - counted > _COUNT_SECONDS:
                    self._switch()
                    counted = time.monotonic()
            self._switch()

    def _switch(self, snapshot: Snapshot | None = None) -> None:
        """Routes by `snapshot`, or on by the present one, with the heads that there are; forgets those of other prompts."""
        with self._switching:
            snapshot = snapshot or self._table.snapshot
            digests = {
                name: _registered_texts(adapter).digest(self._settings.head)
                for name, adapter in snapshot.adapters.items()
            }
            self._heads = {d: self._heads[d] for d in digests.values() if d in self._heads}
            self._table = _table(
                snapshot, {n: self._heads[d] for n, d in digests.items() if d in self._heads}
            )

    def _without_head(self) -> tuple[str, RegisteredTexts, list[str]] | None:
        """An adapter of the present snapshot whose head is to be trained, and all others' prompts."""
        with self._switching:
            adapters, known = self._table.snapshot.adapters, set(self._heads)
        for name, adapter in sorted(adapters.items()):
            texts = _registered_texts(adapter)
            if texts.digest(self._settings.head) not in known:
                return name, texts, [other.prompt for key, other in sorted(adapters.items()) if key != name]
        return None

    def head(self, name: str) -> Head | None:
        """The adapter's head; None for an unknown adapter and for one whose head reaches no threshold."""
        table = self._table
        return table.heads[table.names.index(name)] if name in table.names else None

    def route(self, prompt: str, *, user: str) -> Decision:
        """Where the prompt goes.

        Args:
            user: Decides between champion and challenger; of anonymous users, whatever the request is known by.
        """
        table = self._table
        key = normalised(prompt)
        registered = _registered(table, key)
        guarded = set(table.guards.get(key, ()))
        scores = _Scores()
        # Registered words decide alone: a head that agreed would have nothing to add.
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
            return _base(reason or _why_base(table, guarded, scores), scores, shadow)
        identity, alias = served(table.snapshot.adapters[chosen.name], user)
        decided = Decision(chosen.route, identity, reason, alias, shadow=shadow)
        if chosen.route != "head":
            return decided
        return replace(decided, score=_probability(chosen.logit), threshold=_probability(chosen.threshold))

    def _scores(self, table: _Table, prompt: str, settled: set[str]) -> _Scores:
        if not table.names:
            return _Scores(refusal="no corrected prompt but the registered ones is known")
        if len(prompt) > _LONGEST:
            return _Scores(refusal=f"it has more than {_LONGEST} characters, and only registered prompts may")
        logits = table.weights @ self._embedder.embed([prompt])[0] + table.biases
        asked = read(prompt)
        candidates, refusals = [], {}
        # Words only ever take off a logit: who is below the threshold without them needs no comparison.
        for index in np.flatnonzero(logits >= table.thresholds):
            name = table.names[index]
            if name in settled:
                continue
            comparison = closest(table.readings[index], asked)
            logit = float(logits[index]) + table.heads[index].penalty(comparison)
            threshold = float(table.thresholds[index])
            if logit >= threshold:
                candidates.append(_Candidate(name, "head", logit, threshold))
            else:
                refusals[name] = comparison.contradiction or "too many of its words are unknown"
        nearest = int(np.argmax(logits))
        found = _Candidate(
            table.names[nearest], "head", float(logits[nearest]), float(table.thresholds[nearest])
        )
        return _Scores(tuple(candidates), found, refusals.get(found.name, ""))

    def _trained(self, name: str, texts: RegisteredTexts, digest: str, others: list[str]) -> Head:
        path = None if self._settings.cache is None else self._settings.cache / f"{digest}.json"
        if path is not None and path.exists():
            try:
                head = Head.load(path)
                if head.weights.shape == (DIMENSIONS,):
                    return head
            except (OSError, ValueError) as error:
                _log.warning("a kept head is trained anew: %s", error)
        head = train_head(
            texts, others[:: max(1, len(others) // _OTHERS)], self._embedder, self._settings.head
        )
        if head.calibration is None:
            _log.warning(
                "%s: no threshold reaches a precision of %g; it takes registered prompts only",
                name,
                self._settings.head.min_precision,
            )
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            head.write(path)
        return head


def _registered_texts(adapter: ServedAdapter) -> RegisteredTexts:
    return RegisteredTexts(adapter.prompt, tuple(adapter.paraphrases), tuple(adapter.guard_prompts))


def _table(snapshot: Snapshot, heads: Mapping[str, Head]) -> _Table:
    adapters = snapshot.adapters.values()
    # Of two adapters for one prompt the newer one counts.
    newest = sorted(adapters, key=lambda adapter: (-adapter.champion.created.timestamp(), adapter.name))
    routing = [(name, head) for name, head in sorted(heads.items()) if head.calibration is not None]
    return _Table(
        snapshot=snapshot,
        exact=_index((adapter.name, (adapter.prompt,)) for adapter in newest),
        paraphrases=_index((adapter.name, adapter.paraphrases) for adapter in newest),
        guards=_index((adapter.name, adapter.guard_prompts) for adapter in newest),
        names=tuple(name for name, _ in routing),
        heads=tuple(head for _, head in routing),
        readings=tuple(
            tuple(read(text) for text in _registered_texts(snapshot.adapters[name]).same)
            for name, _ in routing
        ),
        weights=np.array([head.weights for _, head in routing], np.float32).reshape(-1, DIMENSIONS),
        biases=np.array([head.bias for _, head in routing], np.float32),
        thresholds=np.array(
            [head.calibration.threshold for _, head in routing if head.calibration], np.float32
        ),
    )


def _index(texts: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    """Adapters by the normalised texts that each has."""
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
    return {"exact": 2, "paraphrase": 1, "head": 0}[candidate.route], candidate.logit


def _chosen(table: _Table, candidates: list[_Candidate], ambiguity: float) -> tuple[_Candidate | None, str]:
    """The one that takes the prompt and why; or None, and why where two are meant alike."""
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
    return best, f'it means what "{prompt}" means, as the head of {best.name} has it'


def _why_base(table: _Table, guarded: set[str], scores: _Scores) -> str:
    if guarded:
        return f"it is a guard prompt of {', '.join(sorted(guarded))}: the base draws it as it should be"
    nearest = scores.nearest
    if nearest is None:
        return scores.refusal
    prompt = table.snapshot.adapters[nearest.name].prompt
    if scores.refusal:
        return f'nearest is {nearest.name}, "{prompt}", but {scores.refusal}'
    if nearest.logit >= nearest.threshold:
        return f'nearest is {nearest.name}, "{prompt}", which is in shadow mode'
    return f'nearest is {nearest.name}, "{prompt}", and not near enough'


def _base(reason: str, scores: _Scores, shadow: tuple[AdapterIdentity, ...]) -> Decision:
    nearest = scores.nearest
    if nearest is None:
        return Decision("base", None, reason, shadow=shadow)
    return Decision(
        "base",
        None,
        reason,
        score=_probability(nearest.logit),
        threshold=_probability(nearest.threshold),
        shadow=shadow,
    )


def _probability(logit: float) -> float:
    return float(sigmoid(np.array(logit)))
