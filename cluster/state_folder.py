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
    """Hold the state folder, made if missing: whoever else starts or stops its server waits until then."""
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_private(path: Path, text: str) -> None:
    """Write `text` to a file that is whole or not there, and that only its owner reads."""
    write_atomically(path, text, mode=0o600)


def secrets_of(state: Path, name: str, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The secrets in the file `name` of the state folder, which `make` draws the first time."""
    path = state / name
    if not path.exists():
        write_private(path, json.dumps(make()))
    kept: dict[str, str] = json.loads(path.read_text())
    return kept


def tail(log: Path, lines: int = 25) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
