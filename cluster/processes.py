"""The processes of one server: told from everyone else's by what they carry, ended by their pids.

Parentage and process groups do not tell them: `ray start` leaves orphans, and every job's driver is a session
of its own. No single sign is on all of them either: Ray's workers write their title over their environment.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "PROMPT_CORRECTOR_SERVER"
DRIVER_GRACE_S = 8.0
SERVER_GRACE_S = 0.5


@dataclass(frozen=True)
class Signs:
    """What tells the processes of one server.

    `mark` is inherited in the environment, by servers, drivers and whatever these start. `session` is the
    session (as of setsid) in which Ray's workers and agents stay, whose titles begin with "ray::"; None where
    there are none, or while it is not known yet.
    """

    mark: str
    session: int | None

    def on(self, process: psutil.Process) -> bool:
        """Whether the process lives and belongs to the server."""
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            titled = " ".join(process.cmdline()).startswith("ray::")
            return f"{MARK}={self.mark}".encode() in _environment(process) or (
                titled and os.getsid(process.pid) == self.session
            )
        except (psutil.Error, OSError):  # gone meanwhile, or another user's
            return False


def find(signs: Signs) -> list[psutil.Process]:
    """All living processes that bear the signs, and their descendants, but for the calling process."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if process.pid not in found and signs.on(process):
            found[process.pid] = process
            with contextlib.suppress(psutil.NoSuchProcess):
                found.update((child.pid, child) for child in process.children(recursive=True))
    found.pop(os.getpid(), None)
    return [process for process in found.values() if _is_running(process)]


def end(signs: Signs, *, grace_s: float = SERVER_GRACE_S) -> int:
    """End every process that bears the signs; return how many there were.

    Drivers of Ray's jobs and what they started come first and have DRIVER_GRACE_S to end in order. Then the
    servers, which have `grace_s` seconds: Ray has nothing to save, and its raylet, asked to end together with its
    GCS, waits for that for more than 8 s. Looks again until nothing is left, since a dying raylet may still have
    been starting a worker.
    """
    found = find(signs)
    ended = {process.pid for process in found}
    _end([process for process in found if _is_of_a_driver(process)], DRIVER_GRACE_S)
    while found := find(signs):
        ended |= {process.pid for process in found}
        _end(found, grace_s)
    return len(ended)


def is_alive(pid: int, created: float) -> bool:
    """Whether the process `pid` that was created at `created` (seconds since the epoch) still runs."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1.0 and _is_running(process)
    except psutil.NoSuchProcess:
        return False


def memory(processes: Iterable[psutil.Process]) -> int:
    """Bytes that the processes hold together; pages that they share count once (PSS, on Linux)."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            usage = process.memory_full_info()
            total += getattr(usage, "pss", usage.rss)
    return total


def summary(signs: Iterable[Signs]) -> str:
    """How many processes bear one of the signs and how much memory they hold, for people."""
    found = [process for each in signs for process in find(each)]
    return f"{len(found)} process{'' if len(found) == 1 else 'es'}, {memory(found) >> 20} MiB"


def _environment(process: psutil.Process) -> bytes:
    """The raw environment block: psutil's parser stops where a title was written over the beginning."""
    block = Path(f"/proc/{process.pid}/environ")
    if block.exists():
        return block.read_bytes()
    return "\0".join(f"{name}={value}" for name, value in process.environ().items()).encode()


def _is_of_a_driver(process: psutil.Process) -> bool:
    try:
        return b"RAY_JOB_CONFIG_JSON_ENV_VAR=" in _environment(process)
    except (psutil.Error, OSError):
        return False


def _is_running(process: psutil.Process) -> bool:
    """Whether it has not ended: a zombie, which waits for its parent to take note, has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(processes: list[psutil.Process], grace_s: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + grace_s
    while any(map(_is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in filter(_is_running, processes):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    while any(map(_is_running, processes)):
        time.sleep(0.05)
