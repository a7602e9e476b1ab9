"""Lists what is registered: a page of names, all versions of one name, or one version and its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corrector.record.correction_record import CorrectionRecord
from corrector.registry.download import read_record
from corrector.registry.failures import RegistryError
from corrector.registry.references import Reference, Version, check_name, resolve, versions
from corrector.registry.store import open_store

PAGE = 50


@dataclass(frozen=True)
class ModelSummary:
    """A registered name: its newest version, and its aliases (alias -> number)."""

    name: str
    newest: Version | None
    aliases: dict[str, str]


@dataclass(frozen=True)
class ModelPage:
    """A page of names, the last changed first; `token` is that of the next page, None on the last page."""

    models: tuple[ModelSummary, ...]
    token: str | None


def list_models(
    *,
    tracking_uri: str | None,
    root: Path,
    containing: str = "",
    limit: int = PAGE,
    token: str | None = None,
) -> ModelPage:
    """One page of registered names, in one request to MLflow.

    Args:
        containing: A part of the name; case does not matter.
        limit: Names on the page, up to 1000.
        token: Token of the previous page.

    Raises:
        RegistryError: The registry fails, or `containing` or `limit` is impossible.
    """
    if not 1 <= limit <= 1000:
        raise RegistryError(f"limit {limit}: expected 1 to 1000")
    if containing:
        check_name(containing.strip("-._ ") or containing)
    with open_store(tracking_uri, root, writing=False) as store:
        found, following = store.models.page(containing, limit=limit, token=token)
        models = []
        for item in found:
            newest = None if item.newest is None else Version.of(item.newest, item.aliases)
            models.append(ModelSummary(item.name, newest, item.aliases))
        return ModelPage(tuple(models), following)


def show_model(name: str, *, tracking_uri: str | None, root: Path) -> list[Version]:
    """All versions of a name, newest first. RegistryError: there is no such name, or the registry fails."""
    with open_store(tracking_uri, root, writing=False) as store:
        return versions(store, check_name(name))


def find_version(reference: Reference, *, tracking_uri: str | None, root: Path) -> Version:
    """The version that `reference` names; a name alone means its champion. One or two requests to MLflow.

    Raises:
        RegistryError: There is no such name, version or alias, or the registry fails.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        return resolve(store, reference)


def find_record(version: Version, *, tracking_uri: str | None, root: Path) -> CorrectionRecord:
    """The record that `version` was registered from.

    Raises:
        RegistryError: It is missing, or about other bytes than the version's.
        RecordError: It cannot be read.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        return read_record(store, version)
