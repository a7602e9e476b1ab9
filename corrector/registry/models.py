"""Registered models and versions, as this package reads and changes them; MLflow's client is one of two ways to them.

`Models` is the interface. `MlflowModels` asks MLflow's client, `corrector.registry.local_models` the database of a local
registry, without importing MLflow. Other tables (experiments, runs) are read and written by MLflow's client alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PAGE = 1000
"""Items in one answer of MLflow, which gives no more registered models at once."""
_UPSERTS = 3


@dataclass(frozen=True)
class ModelVersion:
    """A registered version.

    Attributes:
        aliases: Its aliases; empty in the result of a search.
        creation_timestamp: Milliseconds since 1970.
    """

    name: str
    version: str
    run_id: str
    source: str
    creation_timestamp: int
    tags: dict[str, str]
    aliases: tuple[str, ...] = ()

    @classmethod
    def of(cls, version: Any) -> ModelVersion:
        """From MLflow's entity."""
        return cls(
            version.name, str(version.version), version.run_id or "", version.source or "",
            int(version.creation_timestamp), dict(version.tags), tuple(sorted(version.aliases)),
        )  # fmt: skip


@dataclass(frozen=True)
class RegisteredModel:
    """A registered name.

    Attributes:
        aliases: Alias -> number of the version.
        newest: Its version with the highest number; None if all were deleted.
        creation_timestamp: Milliseconds since 1970.
    """

    name: str
    creation_timestamp: int
    aliases: dict[str, str]
    tags: dict[str, str]
    newest: ModelVersion | None

    @classmethod
    def of(cls, model: Any) -> RegisteredModel:
        """From MLflow's entity."""
        aliases = {alias: str(number) for alias, number in model.aliases.items()}
        newest = max(model.latest_versions, key=lambda version: int(version.version), default=None)
        return cls(
            model.name, int(model.creation_timestamp), aliases, dict(model.tags),
            None if newest is None else ModelVersion.of(newest),
        )  # fmt: skip


class Models(Protocol):
    """What this package reads and changes of registered models. Numbers of versions are texts, as in MLflow.

    A name, version or alias that does not exist is None. To change a version that does not exist is an error of MLflow, or
    a RegistryError.
    """

    def page(
        self, containing: str = "", *, limit: int = PAGE, token: str | None = None
    ) -> tuple[list[RegisteredModel], str | None]:
        """Names that contain a text, in any case, the last changed first; and the token of the next page."""

    def all(self) -> Iterator[RegisteredModel]:
        """Every registered model."""

    def model(self, name: str) -> RegisteredModel | None: ...

    def version(self, name: str, number: str) -> ModelVersion | None: ...

    def version_of_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version; None also where the alias names a deleted one."""

    def versions(self, name: str | None = None, **tags: str) -> Iterator[ModelVersion]:
        """The versions of a name, or of all, that have these tags, the last changed first."""

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Set an alias to a version in one step, whichever version it named before."""

    def delete_alias(self, name: str, alias: str) -> None: ...

    def set_tag(self, name: str, key: str, value: str) -> None: ...

    def set_version_tag(self, name: str, version: str, key: str, value: str) -> None: ...

    def delete_version_tag(self, name: str, version: str, key: str) -> None: ...


@dataclass(frozen=True)
class MlflowModels:
    """`Models` by MLflow's client: of a server, or of a database with any schema that MLflow knows."""

    client: MlflowClient

    def page(
        self, containing: str = "", *, limit: int = PAGE, token: str | None = None
    ) -> tuple[list[RegisteredModel], str | None]:
        found = self.client.search_registered_models(
            f"name ILIKE '%{containing}%'" if containing else None,
            max_results=limit,
            order_by=["last_updated_timestamp DESC"],
            page_token=token,
        )
        return [RegisteredModel.of(model) for model in found], found.token or None

    def all(self) -> Iterator[RegisteredModel]:
        return map(RegisteredModel.of, pages(self.client.search_registered_models))

    def model(self, name: str) -> RegisteredModel | None:
        found = _or_none(lambda: self.client.get_registered_model(name))
        return None if found is None else RegisteredModel.of(found)

    def version(self, name: str, number: str) -> ModelVersion | None:
        found = _or_none(lambda: self.client.get_model_version(name, number))
        return None if found is None else ModelVersion.of(found)

    def version_of_alias(self, name: str, alias: str) -> ModelVersion | None:
        found = _or_none(lambda: self.client.get_model_version_by_alias(name, alias))
        return None if found is None else ModelVersion.of(found)

    def versions(self, name: str | None = None, **tags: str) -> Iterator[ModelVersion]:
        conditions = [] if name is None else [f"name = '{name}'"]
        conditions += [f"tags.{key} = '{value}'" for key, value in tags.items()]
        return map(ModelVersion.of, pages(self.client.search_model_versions, " and ".join(conditions)))

    def set_alias(self, name: str, alias: str, version: str) -> None:
        _upsert(lambda: self.client.set_registered_model_alias(name, alias, version))

    def delete_alias(self, name: str, alias: str) -> None:
        self.client.delete_registered_model_alias(name, alias)

    def set_tag(self, name: str, key: str, value: str) -> None:
        _upsert(lambda: self.client.set_registered_model_tag(name, key, value))

    def set_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        _upsert(lambda: self.client.set_model_version_tag(name, version, key, value))

    def delete_version_tag(self, name: str, version: str, key: str) -> None:
        self.client.delete_model_version_tag(name, version, key)


def pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    """All items that one of MLflow's searches finds, fetched in pages."""
    token: str | None = None
    while True:
        page = search(*arguments, **options, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _or_none(read: Callable[[], Any]) -> Any:
    """What `read` gives; None where MLflow finds no such name, version or alias."""
    from mlflow.exceptions import MlflowException

    try:
        return read()
    except MlflowException as error:
        # For an alias that does not exist, some of MLflow's stores report an invalid parameter.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _upsert(write: Callable[[], None]) -> None:
    """Call `write`, and again if another process inserted the same row at the same time.

    MLflow looks for a row and then inserts it. If two processes find no row, the second violates the primary key; its next
    call finds the row.
    """
    from mlflow.exceptions import MlflowException

    for attempt in range(_UPSERTS):
        try:
            return write()
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST" or attempt == _UPSERTS - 1:
                raise
    return None
