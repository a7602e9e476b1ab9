"""Compares the bytes of versions with their registered digests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from corrector.files import file_sha256
from corrector.registry.download import expected_digest, weights_file
from corrector.registry.failures import RegistryError, describe_failure
from corrector.registry.references import Version, check_name, model
from corrector.registry.store import Store, open_store

WORKERS = 4


@dataclass(frozen=True)
class DigestCheck:
    """The check of one version's weights: how many bytes were read, and the problem if there is one."""

    version: Version
    bytes: int
    problem: str | None


def verify(
    names: Sequence[str] = (),
    *,
    tracking_uri: str | None,
    root: Path,
    workers: int = WORKERS,
    progress: Callable[[DigestCheck, int], None] | None = None,
) -> list[DigestCheck]:
    """Read the weights of every finished version, or of those of `names`, and compare their SHA-256.

    A version that cannot be read is reported like one whose bytes differ; the others are still checked.

    Args:
        workers: Files read at once.
        progress: Called after each version with the result and the total number of versions.

    Returns:
        One result for each version.

    Raises:
        RegistryError: No such name, or the registry itself cannot be read.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        wanted = [version for version in _versions(store, names) if version.complete]
        found: list[DigestCheck] = []
        # After an interruption, `map` cancels checks that have not begun.
        with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
            for checked in pool.map(partial(_check, store), wanted):
                found.append(checked)
                if progress is not None:
                    progress(checked, len(wanted))
        return found


def _versions(store: Store, names: Sequence[str]) -> Iterator[Version]:
    for name in names:
        model(store, check_name(name))
    chosen: Sequence[str | None] = names or (None,)
    for each in chosen:
        yield from (Version.of(version, {}) for version in store.models.versions(each))


def _check(store: Store, version: Version) -> DigestCheck:
    with tempfile.TemporaryDirectory() as temporary:
        try:
            expected = expected_digest(version)
            weights = weights_file(store, version, Path(temporary))
            found, size = file_sha256(weights), weights.stat().st_size
        except RegistryError as error:
            return DigestCheck(version, 0, str(error))
        except Exception as error:
            problem = describe_failure(error)
            if problem is None:
                raise
            return DigestCheck(version, 0, f"{version}: {problem}")
    if found != expected:
        return DigestCheck(version, size, f"{version}: SHA-256 is {found}; registered was {expected}")
    return DigestCheck(version, size, None)
