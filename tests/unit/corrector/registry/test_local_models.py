"""The database of a local registry is read and changed as MLflow's own client reads and changes it, without MLflow."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from corrector.registry import RegistryError, promote
from corrector.registry.local_models import LocalModels
from corrector.registry.models import MlflowModels, Models
from corrector.registry.store import open_store
from tests.support.registering import NAME, Registering

Read = Callable[[Models], Any]


@pytest.fixture
def both(registered: Registering, root: Path, client: MlflowClient) -> tuple[LocalModels, MlflowModels]:
    """Three versions of NAME, the second deleted; a name without versions; a prompt of MLflow's own; strange tags."""
    registered.all(1, (2, "rejected"), 3)
    promote(NAME, 1, who="Ada", why='"quoted" ü', tracking_uri=None, root=root)
    client.delete_model_version(NAME, "2")
    client.create_registered_model("empty", tags={"owner": "Ada"})
    client.register_prompt("a-prompt", "paint {{what}}")
    client.set_model_version_tag(NAME, "3", "note", "50 %'; --")
    client.set_registered_model_alias(NAME, "Mine", "3")
    return LocalModels(root / "mlflow.db"), MlflowModels(client)


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda models: models.page(), id="all names"),
        pytest.param(lambda models: models.page("LYING"), id="names that contain a text"),
        pytest.param(lambda models: models.page("nowhere"), id="no such name"),
        pytest.param(lambda models: models.page(limit=1)[0], id="the first of two pages"),
        pytest.param(lambda models: models.page(limit=1, token=models.page(limit=1)[1]), id="the second page"),
        pytest.param(lambda models: sorted(models.all(), key=lambda model: model.name), id="every name"),
        pytest.param(lambda models: models.model(NAME), id="a name"),
        pytest.param(lambda models: models.model("empty"), id="a name without versions"),
        pytest.param(lambda models: models.model("unheard-of"), id="a name that is not there"),
        pytest.param(lambda models: models.version(NAME, "1"), id="a version"),
        pytest.param(lambda models: models.version(NAME, "2"), id="a deleted version"),
        pytest.param(lambda models: models.version("unheard-of", "1"), id="a version of no name"),
        pytest.param(lambda models: models.version_of_alias(NAME, "champion"), id="an alias"),
        pytest.param(lambda models: models.version_of_alias(NAME, "Mine"), id="an alias with a capital"),
        pytest.param(lambda models: models.version_of_alias(NAME, "mine"), id="the same in small letters"),
        pytest.param(lambda models: models.version_of_alias(NAME, "latest"), id="MLflow's own alias"),
        pytest.param(lambda models: models.version_of_alias("empty", "latest"), id="the latest of none"),
        pytest.param(lambda models: list(models.versions()), id="all versions"),
        pytest.param(lambda models: list(models.versions(NAME)), id="versions of a name"),
        pytest.param(lambda models: list(models.versions(NAME, work_id="work-3")), id="versions by a tag"),
        pytest.param(
            lambda models: list(models.versions(status="corrected", work_id="work-1")), id="versions by two tags"
        ),
        pytest.param(lambda models: list(models.versions(status="failed")), id="versions by a tag of none"),
    ],
)  # fmt: skip
def test_both_read_the_same(both: tuple[LocalModels, MlflowModels], read: Read) -> None:
    local, mlflow = both
    assert read(local) == read(mlflow)


def rows(root: Path) -> dict[str, set[tuple[Any, ...]]]:
    """All rows of the tables of registered models."""
    tables = (
        "registered_models", "registered_model_tags", "registered_model_aliases", "model_versions", "model_version_tags",
    )  # fmt: skip
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        return {table: set(database.execute(f"SELECT * FROM {table}")) for table in tables}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda models: models.set_alias(NAME, "champion", "3"), id="move an alias"),
        pytest.param(lambda models: models.set_alias(NAME, "new", "1"), id="set an alias"),
        pytest.param(lambda models: models.delete_alias(NAME, "champion"), id="delete an alias"),
        pytest.param(lambda models: models.delete_alias(NAME, "nobodys"), id="delete no alias"),
        pytest.param(lambda models: models.set_tag(NAME, "owner", "ü'\n"), id="set a tag"),
        pytest.param(lambda models: models.set_tag("empty", "owner", "Bob"), id="change a tag"),
        pytest.param(lambda models: models.set_version_tag(NAME, "1", "note", "x" * 5000), id="set a version's tag"),
        pytest.param(lambda models: models.set_version_tag(NAME, "3", "note", ""), id="empty a version's tag"),
        pytest.param(lambda models: models.delete_version_tag(NAME, "3", "note"), id="delete a version's tag"),
    ],
)  # fmt: skip
def test_both_write_the_same_rows(
    both: tuple[LocalModels, MlflowModels], root: Path, change: Callable[[Models], None]
) -> None:
    with (
        closing(sqlite3.connect(root / "mlflow.db")) as database,
        closing(sqlite3.connect(":memory:")) as before,
    ):
        database.backup(before)
        change(both[0])
        local = rows(root)
        before.backup(database)
    change(both[1])
    assert local == rows(root)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda models: models.set_alias(NAME, "champion", "2"), id="a deleted version"),
        pytest.param(lambda models: models.set_version_tag(NAME, "9", "note", "x"), id="no such version"),
        pytest.param(lambda models: models.set_tag("unheard-of", "owner", "Bob"), id="no such name"),
    ],
)
def test_what_is_not_there_is_not_changed(
    both: tuple[LocalModels, MlflowModels], root: Path, change: Callable[[Models], None]
) -> None:
    before = rows(root)
    with pytest.raises(RegistryError, match="not found"):
        change(both[0])
    assert rows(root) == before


def test_the_schema_of_the_installed_mlflow_is_known(root: Path) -> None:
    """After an update of MLflow: if the tests above pass with the new revision in REVISIONS, it belongs there."""
    with open_store(None, root, writing=False) as store:
        assert isinstance(store.models, LocalModels)


def test_another_schema_is_left_to_mlflow(root: Path) -> None:
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with (
        open_store(None, root, writing=False) as store,
        pytest.raises(Exception, match=r"out-of-date|ffffffffffff"),
    ):
        store.models.page()
