"""Finds the processes of one server by an environment variable or by their session, and ends them by their pids.

Parents and process groups do not identify them, since `ray start` leaves orphans. Both the variable and the session are
needed: a job's driver has its own session, and Ray's workers overwrite their environment.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

LABEL_VARIABLE = "PROMPT_CORRECTOR_SERVER"
DRIVER_GRACE_S = 8.0
SERVER_GRACE_S = 0.5


@dataclass(frozen=True)
class ServerProcesses:
    """The processes of one server.

    `label` is the value of LABEL_VARIABLE in the environment of servers, drivers and the processes that these start.
    `session` is the session (setsid) of Ray's workers and agents, whose titles begin with "ray::"; None where there are
    none, or while it is not known yet.
    """

    label: str
    session: int | None = None

    def find(self) -> list[psutil.Process]:
        """All running processes of the server and their descendants, except the calling process."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            if process.pid not in found and self._owns(process):
                found[process.pid] = process
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.update((child.pid, child) for child in process.children(recursive=True))
        found.pop(os.getpid(), None)
        return [process for process in found.values() if _is_running(process)]

    def end(self, *, grace_s: float = SERVER_GRACE_S) -> int:
        """End all processes of the server; return how many there were.

        First ends the drivers of Ray's jobs and what they started, which have DRIVER_GRACE_S seconds to save their state. Then
        ends the servers, which have `grace_s` seconds: Ray has nothing to save, and a raylet that ends together with its GCS
        waits for it for more than 8 s. Repeats until no process is left, since a raylet may start a worker while it ends.
        """
        found = self.find()
        ended = {process.pid for process in found}
        _end([process for process in found if _is_of_a_driver(process)], DRIVER_GRACE_S)
        while found := self.find():
            ended |= {process.pid for process in found}
            _end(found, grace_s)
        return len(ended)

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            titled = " ".join(process.cmdline()).startswith("ray::")
            return f"{LABEL_VARIABLE}={self.label}".encode() in _environment(process) or (
                titled and os.getsid(process.pid) == self.session
            )
        except (psutil.Error, OSError):  # gone meanwhile, or another user's
            return False


def summary(servers: Iterable[ServerProcesses]) -> str:
    """A text for people: number and memory of the servers' processes; shared pages count once (PSS)."""
    found = [process for server in servers for process in server.find()]
    memory = 0
    for process in found:
        with contextlib.suppress(psutil.Error):
            usage = process.memory_full_info()
            memory += getattr(usage, "pss", usage.rss)  # only Linux has PSS
    return f"{len(found)} process{'' if len(found) == 1 else 'es'}, {memory >> 20} MiB"


def _environment(process: psutil.Process) -> bytes:
    """The raw environment block; psutil's parser fails where the process's title has overwritten its beginning."""
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
    """Whether the process has not ended; a zombie has ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(processes: list[psutil.Process], grace_s: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + grace_s
    while any(map(_is_running, processes)):
        if time.monotonic() > deadline:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(0.05)
