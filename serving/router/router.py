"""Router: selects the adapter for a prompt, or the base."""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from corrector.prompts.variations.prompt_parsing import Reading, read
from corrector.values import normalised
from serving.catalogue.snapshot import ServedAdapter, Snapshot
from serving.router.calibration import sigmoid
from serving.router.decision import Decision
from serving.router.embedding import DIMENSIONS, Embedder
from serving.router.prompt_classifier import Head, RegisteredTexts, train_head
from serving.router.traffic import served
from serving.router.word_comparison import closest
from serving.settings import RouterSettings

_log = logging.getLogger(__name__)
_MAX_OTHERS = 60
"""Other adapters' prompts that a head is trained against."""
_REBUILD_SECONDS = 5.0
"""Between two rebuilds of the table while heads are trained."""
_MAX_PROMPT_CHARS = 1000
"""Longest registered prompt (corrector.prompts.failing_prompt); a longer prompt says more than any of them."""


@dataclass(frozen=True, eq=False)
class _Table:
    """The data for decisions; immutable, so that `route` can read one table while `update` builds the next."""

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
    """An adapter that accepts the prompt."""

    name: str
    route: Literal["exact", "paraphrase", "head"]
    logit: float = np.inf
    threshold: float = -np.inf


@dataclass(frozen=True)
class _Scores:
    """The results of the heads: the adapters that accept the prompt, and the one with the highest score.

    Attributes:
        refusal: Why the nearest adapter's head refuses the prompt in spite of its score, or why no head was used.
    """

    candidates: tuple[_Candidate, ...] = ()
    nearest: _Candidate | None = None
    refusal: str = ""


class Router:
    """Routes prompts to adapters, by registered prompts, then registered paraphrases, then heads; all others to the base.

    Thread-safe, also while `update` runs.

    Args:
        snapshot: The served adapters. The constructor trains heads that are not in `settings.cache`, in 1 to 2 s each.
    """

    def __init__(
        self, snapshot: Snapshot, embedder: Embedder, settings: RouterSettings | None = None
    ) -> None:
        self._embedder = embedder
        self._settings = settings or RouterSettings()
        self._training = threading.Lock()
        self._rebuilding = threading.Lock()
        self._heads: dict[str, Head] = {}
        """By the digest of the texts; guarded by `_rebuilding`."""
        self._table = _table(Snapshot(), {})
        self.update(snapshot)

    @property
    def snapshot(self) -> Snapshot:
        return self._table.snapshot

    def update(self, snapshot: Snapshot) -> None:
        """Route by `snapshot`, and train the heads that it needs."""
        self.apply(snapshot)
        self.train_heads()

    def apply(self, snapshot: Snapshot | None = None) -> None:
        """Route by `snapshot` (None: the present one) with the trained heads, without waiting for others."""
        with self._rebuilding:
            snapshot = snapshot or self._table.snapshot
            digests = {
                name: _registered_texts(adapter).digest(self._settings.head)
                for name, adapter in snapshot.adapters.items()
            }
            self._heads = {d: self._heads[d] for d in digests.values() if d in self._heads}
            self._table = _table(
                snapshot, {n: self._heads[d] for n, d in digests.items() if d in self._heads}
            )

    def train_heads(self) -> None:
        """Train the missing heads of the present snapshot, in the caller's thread; every few seconds, new heads are used."""
        with self._training:
            rebuilt = time.monotonic()
            while (missing := self._without_head()) is not None:
                name, texts, others = missing
                digest = texts.digest(self._settings.head)
                head = self._trained(name, texts, digest, others)
                with self._rebuilding:
                    self._heads[digest] = head
                if time.monotonic() - rebuilt > _REBUILD_SECONDS:
                    self.apply()
                    rebuilt = time.monotonic()
            self.apply()

    def _without_head(self) -> tuple[str, RegisteredTexts, list[str]] | None:
        """An adapter of the present snapshot whose head is missing, and all other adapters' prompts."""
        with self._rebuilding:
            adapters, known = self._table.snapshot.adapters, set(self._heads)
        for name, adapter in sorted(adapters.items()):
            texts = _registered_texts(adapter)
            if texts.digest(self._settings.head) not in known:
                return name, texts, [other.prompt for key, other in sorted(adapters.items()) if key != name]
        return None

    def head(self, name: str) -> Head | None:
        """The adapter's head; None where there is none, or no threshold reaches the precision."""
        table = self._table
        return table.heads[table.names.index(name)] if name in table.names else None

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
        # A registered text decides without the heads.
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
            decision = Decision("base", None, reason or _why_base(table, guarded, scores), shadow=shadow)
        else:
            nearest = chosen if chosen.route == "head" else None
            identity, alias = served(table.snapshot.adapters[chosen.name], user)
            decision = Decision(chosen.route, identity, reason, alias, shadow=shadow)
        if nearest is None:
            return decision
        return replace(decision, score=_probability(nearest.logit), threshold=_probability(nearest.threshold))

    def _scores(self, table: _Table, prompt: str, settled: set[str]) -> _Scores:
        if not table.names:
            return _Scores(refusal="no corrected prompt but the registered ones is known")
        if len(prompt) > _MAX_PROMPT_CHARS:
            return _Scores(
                refusal=f"it has more than {_MAX_PROMPT_CHARS} characters, and only registered prompts may"
            )
        logits = table.weights @ self._embedder.embed([prompt])[0] + table.biases
        asked = read(prompt)
        candidates, refusals = [], {}
        # Words only lower a logit, so prompts below the threshold without them need no comparison.
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
            texts, others[:: max(1, len(others) // _MAX_OTHERS)], self._embedder, self._settings.head
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
    # Of two adapters for one prompt the newer one is used.
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
    return {"exact": 2, "paraphrase": 1, "head": 0}[candidate.route], candidate.logit


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


def _probability(logit: float) -> float:
    return float(sigmoid(np.array(logit)))
