"""A registry whose adapters are for the embedded base, as jobs leave them there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from corrector.base import resolve_base
from corrector.registry import local_uri, register
from tests.support.records import write_record
from tests.support.served_adapters import random_adapter
from tests.world.scenes import Scene

LYING = Scene("person", "lying", "grass")
NAME = "a-person-lying-on-the-grass"


@dataclass(frozen=True)
class RegistryOf:
    """The registry at `tracking_uri`, or its local form under `root`; `folder` holds the records."""

    folder: Path
    root: Path
    tracking_uri: str | None = None

    @property
    def client(self) -> MlflowClient:
        """MLflow's own, by which people review, too."""
        uri = self.tracking_uri or local_uri(self.root)
        return MlflowClient(uri, uri)

    @property
    def place(self) -> dict[str, Any]:
        """What the registry's functions are told."""
        return {"tracking_uri": self.tracking_uri, "root": self.root}

    def add(
        self,
        seed: int,
        scene: Scene = LYING,
        *,
        rank: int = 4,
        base_revision: str | None = None,
        **changes: Any,
    ) -> str:
        """Another version with an adapter of that seed; its number."""
        folder = self.folder / f"record-{seed}"
        revision = base_revision or resolve_base("embedded").revision
        options: dict[str, Any] = {"pairs": 2, "guard_images": 1, "steps": 10, "work_id": f"work-{seed}"}
        write_record(
            folder,
            scene,
            adapter=random_adapter(seed, rank=rank, base_revision=revision),
            base_revision=revision,
            **(options | changes),
        )
        version = register(folder, **self.place).version
        assert version is not None
        return version

    def crown(self, number: str, alias: str = "champion", name: str = NAME) -> None:
        """Moves an alias as MLflow's own pages do."""
        self.client.set_registered_model_alias(name, alias, number)
