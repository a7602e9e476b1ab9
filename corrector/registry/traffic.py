"""Which users get an adapter: tags of the registered model and the alias `challenger`, which serving reads.

They may also be set in MLflow's own pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal, get_args

from corrector.registry.failures import RegistryError
from corrector.registry.references import Reference, check_name, model, resolve
from corrector.registry.store import Store, open_store

CHALLENGER = "challenger"
"""Alias of the version that a share of the users get instead of the champion."""
MODE = "serving.mode"
SHARE = "serving.challenger_share"

Mode = Literal["live", "shadow"]


@dataclass(frozen=True)
class TrafficTags:
    """The tags of a registered model that serving reads.

    Attributes:
        mode: "live" routes to the adapter; "shadow" serves the base and records which requests would be routed.
        challenger_share: Share of the users, 0 to 1, that get the challenger.
    """

    mode: Mode = "live"
    challenger_share: float = 0.0

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> TrafficTags:
        """Read a registered model's tags; a missing tag has its default. RegistryError: a tag has an impossible value."""
        mode, share = tags.get(MODE, "live"), tags.get(SHARE, "0")
        if mode not in get_args(Mode):
            raise RegistryError(f'tag {MODE}: "{mode}"; expected live or shadow')
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not (isfinite(value) and 0 <= value <= 1):
            raise RegistryError(f'tag {SHARE}: "{share}"; expected a number from 0 to 1')
        return cls("shadow" if mode == "shadow" else "live", value)


@dataclass(frozen=True)
class Traffic:
    """How a registered model is served; `challenger` is a version's number."""

    tags: TrafficTags
    challenger: str | None


def traffic(name: str, *, tracking_uri: str | None, root: Path) -> Traffic:
    """How the adapter `name` is served; RegistryError if there is no such name, or a tag has an impossible value."""
    with open_store(tracking_uri, root, writing=False) as store:
        return _traffic(store, check_name(name))


def set_traffic(
    name: str,
    *,
    mode: Mode | None = None,
    challenger_share: float | None = None,
    challenger: str | None = None,
    tracking_uri: str | None,
    root: Path,
) -> Traffic:
    """Change how the adapter `name` is served; None leaves a setting as it is.

    Args:
        challenger: A version's number; "none" removes the challenger, and all users get the champion.

    Raises:
        RegistryError: There is no such name or version, the version is unfinished or rejected, or a value is impossible.
    """
    wanted = {
        key: str(value) for key, value in ((MODE, mode), (SHARE, challenger_share)) if value is not None
    }
    TrafficTags.of(wanted)
    with open_store(tracking_uri, root, writing=True) as store:
        model(store, check_name(name))
        if challenger is not None and challenger != "none":
            version = resolve(store, Reference.parse(f"{name}/{challenger}"))
            if not version.complete:
                raise RegistryError(f"{version}: its registration has not ended; wait, or register it again")
            if version.decision == "rejected":
                raise RegistryError(f"{version}: a reviewer rejected it; promote it first if that was wrong")
            store.models.set_alias(name, CHALLENGER, version.number)
        for key, value in wanted.items():
            store.models.set_tag(name, key, value)
        if challenger == "none":
            store.models.delete_alias(name, CHALLENGER)
        return _traffic(store, name)


def _traffic(store: Store, name: str) -> Traffic:
    found = model(store, name)
    try:
        tags = TrafficTags.of(found.tags)
    except RegistryError as error:
        raise RegistryError(f"{name}: {error}") from None
    return Traffic(tags, found.aliases.get(CHALLENGER))
