"""Chooses free ports on the loopback interface, and names the process that uses a taken one."""

from __future__ import annotations

import random
import socket

from corrector.errors import UserError

LOOPBACK = "127.0.0.1"
# Below the ephemeral range, which the kernel uses for outgoing connections, and above 10002-19999, which Ray
# uses for its workers.
CHOICE = range(20000, 32000)


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(purpose: str, wanted: int | None, *, taken: set[int]) -> int:
    """Return `wanted`, or any free port where it is None, and add it to `taken`.

    Raises:
        UserError: The wanted port is in use (the message names the process if the system allows), or out of range.
    """
    if wanted is None:
        port = next(p for p in random.sample(CHOICE, len(CHOICE)) if p not in taken and is_free(p))
    elif not 1024 <= wanted <= 65535:
        raise UserError(f"{purpose} {wanted}: not a port from 1024 to 65535")
    elif wanted in taken or not is_free(wanted):
        raise UserError(
            f"{purpose} {wanted} is taken on {LOOPBACK}{_holder(wanted)}: choose another by its option"
        )
    else:
        port = wanted
    taken.add(port)
    return port


def _holder(port: int) -> str:
    import psutil

    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS allows only root
        return ""
    for connection in connections:
        if connection.laddr and connection.laddr.port == port and connection.pid:
            try:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.NoSuchProcess:
                return ""
    return ""
