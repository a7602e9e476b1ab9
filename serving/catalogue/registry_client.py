"""RegistryClient: reads the model registry in few requests."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from corrector.registry import CHAMPION, Reference, RegistryError
from corrector.registry import fetch as fetch_adapter
from corrector.registry.download import expected_digest, read_record
from corrector.registry.references import resolve
from corrector.registry.store import open_store
from corrector.registry.traffic import CHALLENGER
from serving.adapter_identity import AdapterIdentity


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model with a champion; versions are numbers.

    Attributes:
        created: When the name was registered; after a deletion, the same name and number can be another adapter.
    """

    name: str
    created: int
    champion: str
    challenger: str | None
    tags: Mapping[str, str]


@dataclass(frozen=True)
class ModelVersion:
    """A version, and the prompts with which it was registered."""

    identity: AdapterIdentity
    created: datetime
    base: str
    base_revision: str
    prompt: str
    paraphrases: tuple[str, ...]
    guard_prompts: tuple[str, ...]
    hard_negatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegistryClient:
    """The registry at `tracking_uri`, or the local one under `root` where that is None."""

    tracking_uri: str | None
    root: Path

    def models_with_champion(self) -> list[RegisteredModel]:
        """All names that have a champion, in one request per thousand names.

        Raises:
            RegistryError: The registry cannot be read.
        """
        with open_store(self.tracking_uri, self.root, writing=False) as store:
            return [
                RegisteredModel(
                    found.name,
                    found.creation_timestamp,
                    found.aliases[CHAMPION],
                    found.aliases.get(CHALLENGER),
                    found.tags,
                )
                for found in store.models.all()
                if CHAMPION in found.aliases
            ]

    def version(self, name: str, number_or_alias: str) -> ModelVersion:
        """A version and its prompts.

        Raises:
            RegistryError: There is no such version, its registration is incomplete, or its record cannot be read.
        """
        at = "/" if number_or_alias.isdecimal() else "@"
        reference = Reference.parse(f"{name}{at}{number_or_alias}")
        with open_store(self.tracking_uri, self.root, writing=False) as store:
            version = resolve(store, reference)
            if not version.complete:
                raise RegistryError(f"{version}: its registration has not ended")
            record = read_record(store, version)
            entry = record.entry
            return ModelVersion(
                AdapterIdentity(name, version.number, expected_digest(version)),
                datetime.fromtimestamp(version.created.timestamp(), UTC),
                version.base,
                version.base_revision,
                record.prompt,
                _texts(entry.get("paraphrases")),
                _texts(entry.get("guard_prompts")),
                _texts(entry.get("hard_negatives")),
            )

    def fetch(self, adapter: AdapterIdentity, destination: Path) -> None:
        """Write the adapter's folder atomically, and check its bytes against the SHA-256.

        Raises:
            RegistryError: It cannot be fetched, or the version now has other bytes.
        """
        fetch_adapter(
            adapter.name, adapter.version, destination, tracking_uri=self.tracking_uri, root=self.root
        )


def _texts(written: object) -> tuple[str, ...]:
    return tuple(map(str, written)) if isinstance(written, list | tuple) else ()
