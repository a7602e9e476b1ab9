"""Registered models in the database of a local registry, read and changed without MLflow, whose import takes seconds.

The tables are MLflow's. This module writes the rows that MLflow's own store writes, and knows the schema by its
revision; a database with another one is left to MLflow's client.
"""

# ruff: noqa: S608 - the parts of the statements are this module's own; values are bound

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from corrector.registry.failures import RegistryError
from corrector.registry.models import PAGE, ModelVersion, RegisteredModel

REVISIONS = frozenset({"dc11669786a5"})
"""Revisions of MLflow's schema (Alembic's) of which the tables here are known: MLflow 3.17's."""

_WAIT_SECONDS = 60
_OURS = "workspace = 'default'"
_THERE = f"{_OURS} AND current_stage != 'Deleted_Internal'"
_NO_PROMPT = (
    "name NOT IN (SELECT name FROM registered_model_tags "
    f"WHERE {_OURS} AND key = 'mlflow.prompt.is_prompt' AND value = 'true')"
)


@dataclass(frozen=True)
class LocalModels:
    """`corrector.registry.models.Models` of the SQLite file `database`."""

    database: Path

    def is_known(self) -> bool:
        """Whether the database's schema is one of REVISIONS."""
        with self._open() as rows:
            try:
                return {
                    revision for (revision,) in rows.execute("SELECT version_num FROM alembic_version")
                } <= REVISIONS
            except sqlite3.OperationalError:
                return False

    def page(
        self, containing: str = "", *, limit: int = PAGE, token: str | None = None
    ) -> tuple[list[RegisteredModel], str | None]:
        first = int(token or 0)
        with self._open() as rows:
            names = rows.execute(
                f"SELECT name, creation_time FROM registered_models WHERE {_OURS} AND {_NO_PROMPT} "
                "AND instr(lower(name), lower(?)) ORDER BY last_updated_time DESC, name LIMIT ? OFFSET ?",
                [containing, limit + 1, first],
            ).fetchall()
            models = _models(rows, names[:limit])
        return models, str(first + limit) if len(names) > limit else None

    def all(self) -> Iterator[RegisteredModel]:
        token: str | None = None
        while True:
            models, token = self.page(token=token)
            yield from models
            if token is None:
                return

    def model(self, name: str) -> RegisteredModel | None:
        with self._open() as rows:
            found = rows.execute(
                f"SELECT name, creation_time FROM registered_models WHERE {_OURS} AND name = ?", [name]
            ).fetchone()
            return _models(rows, [found])[0] if found else None

    def version(self, name: str, number: str) -> ModelVersion | None:
        with self._open() as rows:
            found = _versions(rows, "name = ? AND version = ?", [name, int(number)])
            return _with_aliases(rows, found[0]) if found else None

    def version_of_alias(self, name: str, alias: str) -> ModelVersion | None:
        if alias.lower() == "latest":  # MLflow's own alias of the highest version
            newest = found.newest if (found := self.model(name)) else None
            return self.version(name, newest.version) if newest else None
        with self._open() as rows:
            number = f"SELECT version FROM registered_model_aliases WHERE {_OURS} AND name = ? AND alias = ?"
            there = _versions(rows, f"name = ? AND version = ({number})", [name, name, alias])
            return _with_aliases(rows, there[0]) if there else None

    def versions(self, name: str | None = None, **tags: str) -> Iterator[ModelVersion]:
        conditions, values = [_NO_PROMPT], list[object]()
        if name is not None:
            conditions.append("name = ?")
            values.append(name)
        for tag in tags.items():
            conditions.append(
                f"EXISTS (SELECT 1 FROM model_version_tags AS t WHERE {_OURS} AND t.name = model_versions.name "
                "AND t.version = model_versions.version AND key = ? AND value = ?)"
            )
            values += tag
        with self._open() as rows:
            yield from _versions(rows, " AND ".join(conditions), values)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        with self._change(name, version) as rows:
            rows.execute(
                "INSERT OR REPLACE INTO registered_model_aliases (name, alias, version) VALUES (?, ?, ?)",
                [name, alias, int(version)],
            )

    def delete_alias(self, name: str, alias: str) -> None:
        with self._change(name) as rows:
            rows.execute(
                f"DELETE FROM registered_model_aliases WHERE {_OURS} AND name = ? AND alias = ?",
                [name, alias],
            )

    def set_tag(self, name: str, key: str, value: str) -> None:
        with self._change(name) as rows:
            rows.execute(
                "INSERT OR REPLACE INTO registered_model_tags (name, key, value) VALUES (?, ?, ?)",
                [name, key, value],
            )

    def set_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        with self._change(name, version) as rows:
            rows.execute(
                "INSERT OR REPLACE INTO model_version_tags (name, version, key, value) VALUES (?, ?, ?, ?)",
                [name, int(version), key, value],
            )

    def delete_version_tag(self, name: str, version: str, key: str) -> None:
        with self._change(name, version) as rows:
            rows.execute(
                f"DELETE FROM model_version_tags WHERE {_OURS} AND name = ? AND version = ? AND key = ?",
                [name, int(version), key],
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One read transaction, so that a model and its versions are of one moment."""
        with closing(sqlite3.connect(self.database, timeout=_WAIT_SECONDS, isolation_level=None)) as rows:
            rows.execute("BEGIN")
            yield rows

    @contextmanager
    def _change(self, name: str, version: str | None = None) -> Iterator[sqlite3.Connection]:
        """One write transaction. RegistryError: there is no such name, or no such version."""
        with closing(sqlite3.connect(self.database, timeout=_WAIT_SECONDS, isolation_level=None)) as rows:
            rows.execute("BEGIN IMMEDIATE")
            if version is not None and not _versions(rows, "name = ? AND version = ?", [name, int(version)]):
                raise RegistryError(f"{name}/{version}: not found")
            if not rows.execute(
                f"SELECT 1 FROM registered_models WHERE {_OURS} AND name = ?", [name]
            ).fetchone():
                raise RegistryError(f"{name}: not found")
            yield rows
            rows.execute("COMMIT")


def _models(rows: sqlite3.Connection, found: Sequence[tuple[str, int]]) -> list[RegisteredModel]:
    """The models of these names and times of creation, in their order."""
    named = "name IN (SELECT value FROM json_each(?))"
    names = json.dumps([name for name, _ in found])
    last = f"SELECT name, max(version) FROM model_versions WHERE {_THERE} AND {named} GROUP BY name"
    newest = {version.name: version for version in _versions(rows, f"(name, version) IN ({last})", [names])}
    aliases: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name, alias, number in rows.execute(
        f"SELECT name, alias, version FROM registered_model_aliases WHERE {_OURS} AND {named}", [names]
    ):
        aliases[name][alias] = str(number)
    tags: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name, key, value in rows.execute(
        f"SELECT name, key, value FROM registered_model_tags WHERE {_OURS} AND {named}", [names]
    ):
        tags[name][key] = value
    return [
        RegisteredModel(name, created, aliases[name], tags[name], newest.get(name)) for name, created in found
    ]


def _versions(rows: sqlite3.Connection, condition: str, values: Sequence[object]) -> list[ModelVersion]:
    """The versions for which `condition` holds, the last changed first.

    Their tags are read in one statement, since it walks over all tags: the table's key begins with that of the tag.
    """
    there = f"FROM model_versions WHERE {_THERE} AND {condition}"
    tags: defaultdict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for name, number, key, value in rows.execute(
        f"SELECT name, version, key, value FROM model_version_tags WHERE {_OURS} "
        f"AND (name, version) IN (SELECT name, version {there})",
        values,
    ):
        tags[name, number][key] = value
    found = rows.execute(
        f"SELECT name, version, run_id, source, creation_time {there} "
        "ORDER BY last_updated_time DESC, name, version DESC",
        values,
    )
    return [
        ModelVersion(name, str(number), run_id or "", source or "", created, tags[name, number])
        for name, number, run_id, source, created in found
    ]


def _with_aliases(rows: sqlite3.Connection, version: ModelVersion) -> ModelVersion:
    found = rows.execute(
        f"SELECT alias FROM registered_model_aliases WHERE {_OURS} AND name = ? AND version = ? ORDER BY alias",
        [version.name, int(version.version)],
    )
    return replace(version, aliases=tuple(alias for (alias,) in found))
