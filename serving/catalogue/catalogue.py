"""Catalogue: polls the registry's aliases and keeps the snapshot of what is served."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from corrector.errors import UserError
from corrector.registry.traffic import TrafficTags
from serving.adapter_identity import AdapterIdentity
from serving.catalogue.registry_client import ModelVersion, RegisteredModel, RegistryClient
from serving.catalogue.snapshot import RegistryHealth, ServedAdapter, ServedVersion, Snapshot, Traffic
from serving.settings import CatalogueSettings

_logger = logging.getLogger(__name__)

_Key = tuple[str, int, str]
"""Name, time of its registration, version number: together they never change their content."""
_FOREVER = float("inf")


@dataclass(frozen=True)
class _Refusal:
    reason: str
    until: float
    """Time at which the version is tried again."""


class _OtherBase(UserError):
    """The version is for another base, which never changes."""


class Catalogue:
    """Polls the versions that the registry's aliases point at, checks them, and publishes them as a `Snapshot`.

    A version that cannot be served is refused, and the version that its alias pointed at before is still served. While the
    registry does not answer, the last snapshot is served, also after a restart. Any thread may read; one may `refresh`.
    """

    def __init__(
        self,
        registry: RegistryClient,
        *,
        base_revision: str,
        check: Callable[[AdapterIdentity], None],
        settings: CatalogueSettings,
        saved_at: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the saved snapshot; the registry is not read before the first `refresh`.

        Args:
            check: Raises UserError for an adapter that cannot be served (adapter_check.py).
            saved_at: File of the snapshot.
        """
        self._registry = registry
        self._base_revision = base_revision
        self._check = check
        self._settings = settings
        self._saved_at = saved_at
        self._clock = clock
        self._snapshot = Snapshot.load(saved_at)
        self._versions: dict[_Key, ModelVersion] = {}
        self._refusals: dict[_Key, _Refusal] = {}
        self._polled: float | None = None
        self._error: str | None = None
        self._refused: dict[str, str] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    @property
    def health(self) -> RegistryHealth:
        """Whether the registry answers, and what is refused."""
        polled = self._polled
        return RegistryHealth(
            ok=polled is not None and self._error is None,
            age_seconds=None if polled is None else self._clock() - polled,
            snapshot=self._snapshot.number,
            error=self._error,
            refused=self._refused,
        )

    def refresh(self) -> Snapshot:
        """Read the registry once; whatever cannot be read stays as it was."""
        try:
            models = self._registry.models_with_champion()
        except UserError as error:
            if self._error is None:
                _logger.warning("the registry does not answer, what was served is served on: %s", error)
            self._error = str(error)
            return self._snapshot
        if self._error is not None:
            _logger.info("the registry answers again")
        self._admit(models)
        self._publish(models)
        self._polled, self._error = self._clock(), None
        return self._snapshot

    def find(self, name: str, version: str) -> AdapterIdentity:
        """Look up and check a version, which may have no alias.

        Args:
            version: A number, or an alias such as "candidate".

        Raises:
            UserError: There is no such version, or it cannot be served.
        """
        found = self._registry.version(name, version)
        self._check_base(found)
        self._check(found.identity)
        return found.identity

    def start(self) -> None:
        """Refresh every `poll_seconds`, in a thread of its own, until `close`."""
        self._thread = threading.Thread(target=self._run, name="catalogue", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._settings.poll_seconds):
            try:
                self.refresh()
            except Exception:
                _logger.exception("following the registry failed; it is tried again")

    def _admit(self, models: Iterable[RegisteredModel]) -> None:
        """Read and check new versions, several at a time; forget those that no alias points at any more."""
        wanted = {key for model in models for key in _keys(model)}
        now = self._clock()
        self._versions = {key: found for key, found in self._versions.items() if key in wanted}
        self._refusals = {key: no for key, no in self._refusals.items() if key in wanted and no.until > now}
        new = sorted(wanted - self._versions.keys() - self._refusals.keys())
        if new:
            with ThreadPoolExecutor(min(self._settings.fetches, len(new)), "admitting") as threads:
                for key, found in zip(new, threads.map(self._checked, new), strict=True):
                    if isinstance(found, _Refusal):
                        adapter = f"{key[0]}@{key[2]}"
                        _logger.error(
                            "%s is not served: %s", adapter, found.reason, extra={"adapter": adapter}
                        )
                        self._refusals[key] = found
                    else:
                        self._versions[key] = found

    def _checked(self, key: _Key) -> ModelVersion | _Refusal:
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

    def _check_base(self, found: ModelVersion) -> None:
        if found.base_revision != self._base_revision:
            raise _OtherBase(
                f"it is for the base {found.base} at revision {found.base_revision}, not {self._base_revision}"
            )

    def _publish(self, models: Iterable[RegisteredModel]) -> None:
        refused = {f"{key[0]}@{key[2]}": refusal.reason for key, refusal in self._refusals.items()}
        adapters = {}
        for model in models:
            adapter = self._adapter(model, refused)
            if adapter is not None:
                adapters[model.name] = adapter
        self._refused = refused
        if adapters != self._snapshot.adapters or not self._snapshot.number:
            self._snapshot = Snapshot(self._snapshot.number + 1, adapters)
            self._snapshot.save(self._saved_at)
            _logger.info("snapshot %d: %d adapters", self._snapshot.number, len(adapters))

    def _adapter(self, model: RegisteredModel, refused: dict[str, str]) -> ServedAdapter | None:
        """The adapter with its champion, or with the previous champion where the new one cannot be served."""
        before = self._snapshot.adapters.get(model.name)
        keys = _keys(model)
        champion = self._versions.get(keys[0])
        if champion is None and before is None:
            return None
        challenger = self._versions.get(keys[1]) if len(keys) > 1 else None
        try:
            tags = TrafficTags.of(model.tags)
            traffic = Traffic(tags.mode, tags.challenger_share)
        except UserError as error:
            # The user may have meant shadow mode.
            traffic = before.traffic if before is not None else Traffic("shadow")
            refused[model.name] = f"{error}; it is served as before, new ones in shadow mode"
        served = None if challenger is None else ServedVersion(challenger.identity, challenger.created)
        if champion is None:
            assert before is not None
            return replace(before, challenger=served, traffic=traffic)
        return ServedAdapter(
            model.name,
            champion.prompt,
            champion.paraphrases,
            champion.guard_prompts,
            ServedVersion(champion.identity, champion.created),
            served,
            traffic,
            champion.hard_negatives,
        )


def _keys(model: RegisteredModel) -> list[_Key]:
    """The keys of the model's champion, and of its challenger where it has one."""
    return [
        (model.name, model.created, number)
        for number in (model.champion, model.challenger)
        if number is not None
    ]
