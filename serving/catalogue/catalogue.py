"""Catalogue: follows the registry's aliases and says what is to be served."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from corrector.errors import UserError
from corrector.registry.traffic import TrafficTags
from serving.catalogue import saved
from serving.catalogue.health import RegistryHealth
from serving.catalogue.reading import Pointed, Registered, Registry
from serving.catalogue.settings import CatalogueSettings
from serving.catalogue.snapshot import ServedAdapter, ServedVersion, Snapshot, Traffic
from serving.identity import AdapterIdentity

_logger = logging.getLogger(__name__)

_Key = tuple[str, int, str]
"""Name, when it was registered, version: what never changes its content."""
_FOREVER = float("inf")


@dataclass(frozen=True)
class _Refusal:
    why: str
    until: float
    """When it is tried again, of the clock."""


class _OtherBase(UserError):
    """A version of an adapter for another base, which it will always be."""


class Catalogue:
    """What the registry's aliases point at, checked, as one `Snapshot` after the other.

    A version that cannot be served is refused, and what its alias pointed at before is served on; so it is with everything
    while the registry does not answer, from one start to the next. Safe to read from any thread; `look` is for one.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        base_revision: str,
        check: Callable[[AdapterIdentity], None],
        settings: CatalogueSettings,
        saved_at: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins with what was saved; nothing is asked before the first `look`.

        Args:
            check: Raises UserError for an adapter that cannot be served (fitness.py).
            saved_at: File of the snapshot.
        """
        self._registry = registry
        self._base_revision = base_revision
        self._check = check
        self._settings = settings
        self._saved_at = saved_at
        self._clock = clock
        self._snapshot = saved.load(saved_at)
        self._versions: dict[_Key, Registered] = {}
        self._refusals: dict[_Key, _Refusal] = {}
        self._looked: float | None = None
        self._error: str | None = None
        self._refused: dict[str, str] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The latest."""
        return self._snapshot

    @property
    def health(self) -> RegistryHealth:
        """How it stands with the registry."""
        looked = self._looked
        return RegistryHealth(
            ok=looked is not None and self._error is None,
            age_seconds=None if looked is None else self._clock() - looked,
            snapshot=self._snapshot.number,
            error=self._error,
            refused=self._refused,
        )

    def look(self) -> Snapshot:
        """Asks the registry once; what could not be learnt stays as it was."""
        try:
            pointed = self._registry.pointed()
        except UserError as error:
            if self._error is None:
                _logger.warning("the registry does not answer, what was served is served on: %s", error)
            self._error = str(error)
            return self._snapshot
        if self._error is not None:
            _logger.info("the registry answers again")
        self._admit(pointed)
        self._flip(pointed)
        self._looked, self._error = self._clock(), None
        return self._snapshot

    def find(self, name: str, version: str) -> AdapterIdentity:
        """A version that need not have an alias, checked: for reviewers who want to see it draw.

        Args:
            version: Its number, or an alias such as "candidate".

        Raises:
            UserError: There is none, or it cannot be served.
        """
        found = self._registry.version(name, version)
        self._check_base(found)
        self._check(found.identity)
        return found.identity

    def follow(self) -> None:
        """Looks again and again, in a thread of its own, until `close`."""
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._settings.poll_seconds):
            try:
                self.look()
            except Exception:
                _logger.exception("following the registry failed; it is tried again")

    def _admit(self, pointed: Iterable[Pointed]) -> None:
        """Reads and checks the versions that are new, several at a time; forgets those that nothing points at."""
        wanted = {key for one in pointed for key in _keys(one)}
        now = self._clock()
        self._versions = {key: found for key, found in self._versions.items() if key in wanted}
        self._refusals = {key: no for key, no in self._refusals.items() if key in wanted and no.until > now}
        new = sorted(wanted - self._versions.keys() - self._refusals.keys())
        if new:
            with ThreadPoolExecutor(min(self._settings.fetches, len(new)), "admitting") as threads:
                for key, found in zip(new, threads.map(self._admitted, new), strict=True):
                    if isinstance(found, _Refusal):
                        _logger.error("%s@%s is not served: %s", key[0], key[2], found.why)
                        self._refusals[key] = found
                    else:
                        self._versions[key] = found

    def _admitted(self, key: _Key) -> Registered | _Refusal:
        name, _, number = key
        try:
            found = self._registry.version(name, number)
            self._check_base(found)
            self._check(found.identity)
        except _OtherBase as error:
            return _Refusal(str(error), _FOREVER)
        except UserError as error:
            return _Refusal(str(error), self._clock() + self._settings.retry_seconds)
        return found

    def _check_base(self, found: Registered) -> None:
        if found.base_revision != self._base_revision:
            raise _OtherBase(
                f"it is for the base {found.base} at revision {found.base_revision}, not {self._base_revision}"
            )

    def _flip(self, pointed: Iterable[Pointed]) -> None:
        """The next snapshot, if anything changed."""
        refused = {f"{key[0]}@{key[2]}": refusal.why for key, refusal in self._refusals.items()}
        adapters = {}
        for one in pointed:
            adapter = self._adapter(one, refused)
            if adapter is not None:
                adapters[one.name] = adapter
        self._refused = refused
        if adapters != self._snapshot.adapters or not self._snapshot.number:
            self._snapshot = Snapshot(self._snapshot.number + 1, adapters)
            saved.save(self._snapshot, self._saved_at)
            _logger.info("snapshot %d: %d adapters", self._snapshot.number, len(adapters))

    def _adapter(self, pointed: Pointed, refused: dict[str, str]) -> ServedAdapter | None:
        """With the champion, or with what was champion before it where that cannot be served."""
        before = self._snapshot.adapters.get(pointed.name)
        keys = _keys(pointed)
        champion = self._versions.get(keys[0])
        if champion is None and before is None:
            return None
        challenger = self._versions.get(keys[1]) if len(keys) > 1 else None
        try:
            tags = TrafficTags.of(pointed.tags)
            traffic = Traffic(tags.mode, tags.challenger_share)
        except UserError as error:
            # Of somebody who meant to hold an adapter back, and mistyped, it must not be served.
            traffic = before.traffic if before is not None else Traffic("shadow")
            refused[pointed.name] = f"{error}; it is served as before, new ones in shadow mode"
        served = None if challenger is None else ServedVersion(challenger.identity, challenger.created)
        if champion is None:
            assert before is not None
            return replace(before, challenger=served, traffic=traffic)
        return ServedAdapter(
            pointed.name,
            champion.prompt,
            champion.paraphrases,
            champion.guard_prompts,
            ServedVersion(champion.identity, champion.created),
            served,
            traffic,
        )


def _keys(pointed: Pointed) -> list[_Key]:
    """Of its champion, and of its challenger where it has one."""
    numbers = [pointed.champion, *([pointed.challenger] if pointed.challenger is not None else [])]
    return [(pointed.name, pointed.born, number) for number in numbers]
