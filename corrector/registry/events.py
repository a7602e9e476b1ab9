"""What happens in the registry as one stream of events, whoever made it happen.

Polling (`Poller`) works with every MLflow and misses nothing that lasts longer than its interval. Webhooks (`verify_webhook`)
come within a second, from a server with an SQL backend that was told where to send them; they can be lost, so a follower that
must not miss a change polls as well, seldom; and they can come twice, which `Deliveries` notices. Both tell of changes made in
MLflow's own pages.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from corrector.registry.store import RegistryError, open_store

Kind = Literal["alias set", "alias removed", "version registered"]
WEBHOOK_EVENTS = ("model_version.created", "model_version_alias.created", "model_version_alias.deleted")
"""What to subscribe to when a webhook is made: `MlflowClient.create_webhook(events=...)`."""
REPLAY_WINDOW_S = 300.0
MAX_WEBHOOK_BYTES = 1024**2

_KINDS: dict[tuple[Any, Any], Kind] = {
    ("model_version", "created"): "version registered",
    ("model_version_alias", "created"): "alias set",
    ("model_version_alias", "deleted"): "alias removed",
}


@dataclass(frozen=True)
class Event:
    """One change.

    Attributes:
        name: Of the registered model.
        version: That was registered, or that the alias points at now; None where the alias was removed.
        alias: None for "version registered".
        when: Of the change by a webhook's word; by polling, when it was seen.
        delivery: A webhook's identity, the same when it is sent again; None where the change was seen by polling.
    """

    kind: Kind
    name: str
    version: str | None
    alias: str | None
    when: datetime
    delivery: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """All aliases, (name, alias) -> number, and the newest version's number of every name."""

    aliases: Mapping[tuple[str, str], str]
    newest: Mapping[str, int]


class Poller:
    """Looks at the whole registry each time it is asked, and tells what changed since."""

    def __init__(self, *, tracking_uri: str | None, root: Path, since: Snapshot | None = None) -> None:
        """`since`: what is known already; None: all that is there now (the first `poll` tells nothing of it)."""
        self._tracking_uri = tracking_uri
        self._root = root
        self.snapshot = since or self._look()

    def poll(self) -> list[Event]:
        """The changes since the last time, versions first, then aliases in the order of their names.

        Raises:
            RegistryError: The registry cannot be read; the next poll tells what this one would have.
        """
        before, self.snapshot = self.snapshot, self._look()
        return changes(before, self.snapshot)

    def follow(self, interval: float) -> Iterator[Event]:
        """Changes as they are seen, for ever, looking every `interval` seconds. Raises as `poll` does."""
        while True:
            yield from self.poll()
            time.sleep(interval)

    def _look(self) -> Snapshot:
        with open_store(self._tracking_uri, self._root, writing=False) as store:
            models = list(store.all_models())
        return Snapshot(
            {(item.name, alias): str(number) for item in models for alias, number in item.aliases.items()},
            {
                item.name: max((int(version.version) for version in item.latest_versions), default=0)
                for item in models
            },
        )


def changes(before: Snapshot, after: Snapshot) -> list[Event]:
    """What lies between two looks. Of an alias that moved twice in between, only where it ended is known."""
    now = datetime.now(UTC)
    events = [
        Event("version registered", name, str(number), None, now)
        for name, newest in sorted(after.newest.items())
        for number in range(before.newest.get(name, 0) + 1, newest + 1)
    ]
    for key in sorted({*before.aliases, *after.aliases}):
        name, alias = key
        target = after.aliases.get(key)
        if target is None:
            events.append(Event("alias removed", name, None, alias, now))
        elif target != before.aliases.get(key):
            events.append(Event("alias set", name, target, alias, now))
    return events


def verify_webhook(
    headers: Mapping[str, str],
    body: bytes,
    secret: str,
    *,
    now: float | None = None,
    window: float = REPLAY_WINDOW_S,
) -> Event | None:
    """The event that an MLflow webhook brings, if it is signed with `secret` and fresh.

    MLflow (mlflow/webhooks/delivery.py) signs `DELIVERY_ID.TIMESTAMP.BODY` with HMAC-SHA256. A captured request can be sent
    again inside the window, and MLflow itself repeats one that was not answered well: see `Deliveries`.

    Args:
        headers: Of the request; their case does not matter.
        body: As it was received, byte for byte.
        now: Seconds since the epoch; None: the clock's.
        window: Seconds that the request's time may differ from `now`.

    Returns:
        None where the request is genuine, and about something that is no change of a version or an alias.

    Raises:
        RegistryError: The signature is missing or wrong, the request too old, or its body not MLflow's.
    """
    if not secret:
        raise RegistryError("webhook: no secret is set; without one anybody could send events")
    if len(body) > MAX_WEBHOOK_BYTES:
        raise RegistryError(f"webhook: {len(body):,} bytes; MLflow sends no more than {MAX_WEBHOOK_BYTES:,}")
    given = {name.lower(): value for name, value in headers.items()}
    delivery, sent = given.get("x-mlflow-delivery-id", ""), given.get("x-mlflow-timestamp", "")
    version, _, signature = given.get("x-mlflow-signature", "").partition(",")
    signed = f"{delivery}.{sent}.".encode() + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    if version != "v1" or not hmac.compare_digest(_decoded(signature), expected):
        raise RegistryError("webhook: its signature is missing or wrong; check the secret on both sides")
    if (
        not sent.isascii()
        or not sent.isdigit()
        or abs((time.time() if now is None else now) - int(sent)) > window
    ):
        raise RegistryError(
            f"webhook: sent more than {window:g} s ago or later; check the clocks on both sides"
        )
    try:
        content = json.loads(body)
        kind = _KINDS.get((content["entity"], content["action"]))
        if kind is None:
            return None
        data = content["data"]
        return Event(
            kind=kind,
            name=str(data["name"]),
            version=None if kind == "alias removed" else str(data["version"]),
            alias=None if kind == "version registered" else str(data["alias"]),
            when=datetime.fromisoformat(content["timestamp"]),
            delivery=delivery,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise RegistryError(f"webhook: not one of MLflow's: {error!r}") from error


class Deliveries:
    """The webhook deliveries of so short a time ago that `verify_webhook` would still take them; for any number of threads.

    event = verify_webhook(headers, body, secret)
    if event is not None and deliveries.add(event):
        try: act(event)
        except Exception: deliveries.discard(event); raise    # answered by a 5xx: MLflow sends it again
    """

    def __init__(self, *, window: float = REPLAY_WINDOW_S, capacity: int = 10_000) -> None:
        """A memory without content.

        Args:
            window: That of `verify_webhook`, in seconds.
            capacity: Deliveries that are remembered; beyond it the oldest is forgotten. Only what was signed gets here, so
                that nobody but MLflow can fill it.
        """
        # A request may bear a time one window ahead, and is taken until one window after that time.
        self._kept_for = 2 * window
        self._capacity = capacity
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, event: Event, *, now: float | None = None) -> bool:
        """Remember the delivery of `event`; whether it is new. An event without one, from polling, always is.

        Args:
            now: Seconds since the epoch; None: the clock's.
        """
        if event.delivery is None:
            return True
        at = time.time() if now is None else now
        with self._lock:
            while self._seen and next(iter(self._seen.values())) < at - self._kept_for:
                self._seen.popitem(last=False)
            if event.delivery in self._seen:
                return False
            self._seen[event.delivery] = at
            if len(self._seen) > self._capacity:
                self._seen.popitem(last=False)
            return True

    def discard(self, event: Event) -> None:
        """Forget the delivery of `event`: it could not be acted on, and is to be taken when it comes again."""
        with self._lock:
            self._seen.pop(event.delivery or "", None)


def _decoded(signature: str) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return b""
