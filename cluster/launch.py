"""Starts servers as separate processes and waits until they listen."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from cluster.state_folder import tail
from corrector.errors import UserError

POLL_S = 0.05


def launch(
    command: Sequence[str], *, folder: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start `command` in `folder`; its output replaces the content of `log`."""
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal reaches the caller only, which then ends the server
        )


def await_listening(
    name: str, server: subprocess.Popen[bytes], port: int, *, log: Path, limit_s: float, deadline: float
) -> None:
    """Return once the server, or a process that it started, listens at `port` of any interface.

    Args:
        name: The server's name in the error: "the object store's proxy server".
        limit_s: Seconds from the start to `deadline` (time.monotonic()), for the error.

    Raises:
        UserError: It has ended, or the deadline has passed; the message holds the end of its log.
    """
    while not listens(server.pid, port):
        if server.poll() is not None:
            reason = f"did not start: exit status {server.returncode}"
        elif time.monotonic() > deadline:
            reason = f"was not ready within {limit_s:g} s"
        else:
            time.sleep(POLL_S)
            continue
        raise UserError(f"{name} {reason}; the end of its log ({log}):\n{tail(log)}")


def listens(pid: int, port: int) -> bool:
    """Whether the process, or one that descends from it, listens at `port` of any interface."""
    try:
        server = psutil.Process(pid)
        connections = [
            connection
            for process in (server, *server.children(recursive=True))
            for connection in process.net_connections(kind="tcp")
        ]
    except psutil.Error:
        return False
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connection in connections
    )


def answers(url: str, deadline: float, *, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET of `url` succeeds before the deadline (time.monotonic()); HTTP proxies are not used."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - a fixed scheme and host
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        try:
            with direct.open(request, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_S)
    return False
