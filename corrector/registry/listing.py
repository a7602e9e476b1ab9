"""Looking at what is registered: a page of names, or one name with all its versions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corrector.registry.references import Reference, Version, aliases, check_name, resolve, versions
from corrector.registry.store import RegistryError, open_store

PAGE = 50


@dataclass(frozen=True)
class Listed:
    """A registered name: its newest version, and where its aliases point (alias -> number)."""

    name: str
    newest: Version | None
    aliases: dict[str, str]


@dataclass(frozen=True)
class Page:
    """Some of the names, those changed last first; `token` asks for those that follow, None: there are none."""

    models: tuple[Listed, ...]
    token: str | None


def list_models(
    *,
    tracking_uri: str | None,
    root: Path,
    containing: str = "",
    limit: int = PAGE,
    token: str | None = None,
) -> Page:
    """One page of what is registered. One request to MLflow, whose database filters, sorts and cuts.

    Args:
        containing: Letters of the name; case does not matter.
        limit: Names on the page, up to 1000.
        token: Of the page before.

    Raises:
        RegistryError: The registry fails, or `containing` or `limit` are not possible.
    """
    if not 1 <= limit <= 1000:
        raise RegistryError(f"limit {limit}: expected 1 to 1000")
    if containing:
        check_name(containing.strip("-._ ") or containing)
    with open_store(tracking_uri, root, writing=False) as store:
        found = store.client.search_registered_models(
            f"name ILIKE '%{containing}%'" if containing else None,
            max_results=limit,
            order_by=["last_updated_timestamp DESC"],
            page_token=token,
        )
        models = []
        for item in found:
            known = {alias: str(number) for alias, number in item.aliases.items()}
            newest = max(item.latest_versions, key=lambda version: int(version.version), default=None)
            models.append(Listed(item.name, newest and Version.of(newest, known), known))
        return Page(tuple(models), found.token or None)


def show_model(name: str, *, tracking_uri: str | None, root: Path) -> tuple[Listed, list[Version]]:
    """A name, and all its versions, newest first.

    Raises:
        RegistryError: No such name, or the registry fails.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        found = versions(store, check_name(name))
        return Listed(name, found[0] if found else None, aliases(store, name)), found


def find_version(reference: Reference, *, tracking_uri: str | None, root: Path) -> Version:
    """The version that `reference` names; a bare name means its champion. One or two requests to MLflow.

    Raises:
        RegistryError: No such name, version or alias; or the registry fails.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        return resolve(store, reference)
