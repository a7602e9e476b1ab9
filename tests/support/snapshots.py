"""Snapshots with adapters that have nothing but prompts."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from serving.adapter_identity import AdapterIdentity
from serving.catalogue.snapshot import ServedAdapter, ServedVersion, Snapshot, Traffic

_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Registered:
    """What the tests say about an adapter."""

    name: str
    prompt: str
    paraphrases: Sequence[str] = ()
    guard_prompts: Sequence[str] = ()
    hard_negatives: Sequence[str] = ()


def version(name: str, number: int) -> ServedVersion:
    """Version `number` of an adapter, an hour newer than the one before."""
    digest = hashlib.sha256(f"{name}@{number}".encode()).hexdigest()
    return ServedVersion(AdapterIdentity(name, str(number), digest), _START + timedelta(hours=number))


def adapter(
    registered: Registered,
    *,
    champion: int = 1,
    challenger: int | None = None,
    traffic: Traffic | None = None,
) -> ServedAdapter:
    """The adapter with its aliases at these versions."""
    return ServedAdapter(
        registered.name,
        registered.prompt,
        tuple(registered.paraphrases),
        tuple(registered.guard_prompts),
        version(registered.name, champion),
        None if challenger is None else version(registered.name, challenger),
        traffic or Traffic(),
        tuple(registered.hard_negatives),
    )


def snapshot(adapters: Iterable[ServedAdapter], number: int = 1) -> Snapshot:
    """All of them, by name."""
    return Snapshot(number, {found.name: found for found in adapters})
