"""References to registered adapters (NAME, NAME/3, NAME@champion), and the versions that they name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from corrector.registry.failures import RegistryError
from corrector.registry.models import ModelVersion, RegisteredModel
from corrector.registry.store import Store
from corrector.registry.tags import COMPLETE, DECISION, SCORES, SHA256, STATUS, WORK_ID

CANDIDATE = "candidate"
CHAMPION = "champion"
PREVIOUS = "previous"

_REFERENCE = re.compile(
    r"(?P<name>[\w][\w. -]{0,249})(/(?P<version>\d{1,9})|@(?P<alias>[\w][\w.-]{0,249}))?", re.ASCII
)
_SCORES = TypeAdapter(dict[str, dict[str, float]])
_EXPECTED = "expected NAME, NAME/VERSION or NAME@ALIAS, as in a-person-lying/3 or a-person-lying@champion"


@dataclass(frozen=True)
class Reference:
    """A parsed reference; at most one of `version` and `alias` is set."""

    name: str
    version: str | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `text`; RegistryError if it is no reference (it has a colon or a second slash, or begins with a dot)."""
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise RegistryError(f"{text!r}: no name of a registered adapter; {_EXPECTED}")
        return cls(found["name"], found["version"], found["alias"])

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}/{self.version}"
        return f"{self.name}@{self.alias}" if self.alias is not None else self.name


@dataclass(frozen=True)
class Version:
    """A registered version as its tags and aliases describe it.

    Attributes:
        status: "corrected" (the gate passed), "rejected" or "not judged"; empty where the version was made elsewhere.
        decision: The last review: "promoted", "rejected", "rolled back", "retired", or empty.
        scores: Metric -> base, corrected, change, low, high, n.
        complete: Whether its registration ended; other versions must not be used.
        tags: All tags, as MLflow has them.
    """

    name: str
    number: str
    aliases: tuple[str, ...]
    status: str
    decision: str
    prompt: str
    base: str
    base_revision: str
    sha256: str
    work_id: str
    run_id: str
    source: str
    created: datetime
    scores: dict[str, dict[str, float]]
    complete: bool
    tags: dict[str, str]

    @classmethod
    def of(cls, version: ModelVersion, aliases: dict[str, str] | None = None) -> Self:
        """Read a registered version. Pass `aliases` (alias -> number) for the result of a search, which leaves them out."""
        tags = dict(version.tags)
        number = version.version
        own = version.aliases
        if aliases is not None:
            own = tuple(alias for alias, target in aliases.items() if target == number)
        return cls(
            name=version.name,
            number=number,
            aliases=tuple(sorted(own)),
            status=tags.get(STATUS, ""),
            decision=tags.get(DECISION, ""),
            prompt=tags.get("prompt", ""),
            base=tags.get("base", ""),
            base_revision=tags.get("base_revision", ""),
            sha256=tags.get(SHA256, ""),
            work_id=tags.get(WORK_ID, ""),
            run_id=version.run_id,
            source=version.source,
            created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
            scores=_scores(tags.get(SCORES, "")),
            complete=COMPLETE in tags,
            tags=tags,
        )

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


def model_name(name: str) -> str:
    """The registered model's name for a prompt's slug: the slug where MLflow and URLs accept it, else a safe form.

    A changed name ends in a part of the slug's hash, so that two slugs never share a name.
    """
    safe = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")[:150]
    return (
        safe
        if safe and safe == name
        else f"{safe or 'prompt'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    )


def check_name(name: str) -> str:
    """`name`, if it is a name without version and alias; RegistryError otherwise."""
    if Reference.parse(name) != Reference(name):
        raise RegistryError(f"{name!r}: no name of a registered adapter; leave the version and the alias out")
    return name


def model(store: Store, name: str) -> RegisteredModel:
    """The registered model `name` with its aliases and tags; RegistryError where there is none."""
    found = store.models.model(name)
    if found is None:
        raise RegistryError(f"{name}: not found; `python -m corrector.registry list` shows what there is")
    return found


def resolve(store: Store, reference: Reference) -> Version:
    """The version that `reference` names; a name alone means its champion.

    Raises:
        RegistryError: There is no such name, version or alias, or the alias names a deleted version.
    """
    alias = reference.alias or (CHAMPION if reference.version is None else None)
    if alias is not None:
        found = store.models.version_of_alias(reference.name, alias)
    else:
        assert reference.version is not None
        found = store.models.version(reference.name, reference.version)
    if found is None:
        raise RegistryError(_missing(store, reference, alias))
    return Version.of(found)


def versions(store: Store, name: str) -> list[Version]:
    """All versions of a registered model, newest first; RegistryError where there is no such name."""
    known = model(store, name).aliases
    found = [Version.of(version, known) for version in store.models.versions(name)]
    return sorted(found, key=lambda version: -int(version.number))


def first_version(store: Store, name: str, work_id: str) -> ModelVersion | None:
    """The version of a piece of work that counts: the one with the smallest number (see `registration`)."""
    found = store.models.versions(name, **{WORK_ID: work_id})
    return min(found, key=lambda version: int(version.version), default=None)


def _missing(store: Store, reference: Reference, alias: str | None) -> str:
    known = model(store, reference.name).aliases
    numbers = sorted(int(version.version) for version in store.models.versions(reference.name))
    there = f"it has {_listed('version', map(str, numbers))} and {_listed('alias', known)}"
    if alias is None:
        return f"{reference}: version {reference.version} not found; {there}"
    if alias in known:
        return (
            f"{reference.name}@{alias}: points at version {known[alias]}, which was deleted; {there}; "
            "promote one of them"
        )
    return f"{reference.name}@{alias}: alias {alias} not found; {there}"


def _listed(what: str, items: Any) -> str:
    found = [str(item) for item in items]
    return f"{what} {', '.join(found)}" if found else f"no {what}"


def _scores(text: str) -> dict[str, dict[str, float]]:
    """The scores in a tag; empty if the tag was edited and cannot be read."""
    try:
        return _SCORES.validate_json(text)
    except ValidationError:
        return {}
