"""A server's state folder: a lock for its commands, and files that only the owner can read."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from corrector.files import write_atomically

PROJECT = Path(__file__).resolve().parent.parent
SERVERS_FOLDER = PROJECT / ".servers"


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Lock the state folder within the block, and create it if missing; other commands of its server wait."""
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_private(path: Path, text: str) -> None:
    """Write `text` atomically to a file that only its owner can read."""
    write_atomically(path, text, mode=0o600)


def secrets_of(state: Path, name: str, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The secrets in the file `name` of the state folder; `make` creates them at the first call."""
    path = state / name
    if not path.exists():
        write_private(path, json.dumps(make()))
    kept: dict[str, str] = json.loads(path.read_text())
    return kept


def tail(log: Path, lines: int = 25) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
