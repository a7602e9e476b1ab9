"""Every version's bytes against the digest that it was registered with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from corrector.files import file_sha256
from corrector.registry.references import Version, check_name, model
from corrector.registry.store import RegistryError, Store, describe_failure, open_store
from corrector.registry.versions import expected_digest, weights_file

WORKERS = 4
_AHEAD = 4


@dataclass(frozen=True)
class Checked:
    """One version's weights: how many bytes were read, and what is wrong with them, if anything."""

    version: Version
    bytes: int
    problem: str | None


def verify(
    names: Sequence[str] = (),
    *,
    tracking_uri: str | None,
    root: Path,
    workers: int = WORKERS,
    progress: Callable[[Checked, int], None] | None = None,
) -> list[Checked]:
    """Read the weights of every finished version, or of those of `names`, and compare their SHA-256.

    A version that cannot be read is reported like one whose bytes differ; the others are checked all the same.

    Args:
        workers: Files read at once.
        progress: Called after each with the result and how many versions there are in all.

    Returns:
        One result for each version, in no order.

    Raises:
        RegistryError: No such name, or the registry itself cannot be read.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        wanted = [version for version in _versions(store, names) if version.complete]
        found: list[Checked] = []
        with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
            for checked in _in_turn(pool, store, wanted, workers + _AHEAD):
                found.append(checked)
                if progress is not None:
                    progress(checked, len(wanted))
        return found


def _versions(store: Store, names: Sequence[str]) -> Iterator[Version]:
    for name in names:
        model(store, check_name(name))
    for condition in [f"name = '{name}'" for name in names] or [""]:
        yield from (Version.of(version, {}) for version in store.all_versions(condition))


def _in_turn(
    pool: ThreadPoolExecutor, store: Store, versions: Sequence[Version], at_once: int
) -> Iterator[Checked]:
    """Results as they come, with no more than `at_once` under way: a break ends the work soon."""
    running: set[Future[Checked]] = set()
    for version in versions:
        if len(running) >= at_once:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        running.add(pool.submit(_check, store, version))
    for future in running:
        yield future.result()


def _check(store: Store, version: Version) -> Checked:
    with tempfile.TemporaryDirectory() as temporary:
        try:
            expected = expected_digest(version)
            weights = weights_file(store, version, Path(temporary))
            found, size = file_sha256(weights), weights.stat().st_size
        except RegistryError as error:
            return Checked(version, 0, str(error))
        except Exception as error:
            problem = describe_failure(error)
            if problem is None:
                raise
            return Checked(version, 0, f"{version}: {problem}")
    if found != expected:
        return Checked(version, size, f"{version}: SHA-256 is {found}; registered was {expected}")
    return Checked(version, size, None)
