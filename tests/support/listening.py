"""The addresses on which processes listen."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable

import psutil


def listening(processes: Iterable[psutil.Process]) -> list[str]:
    """The IP address of every listening socket of these processes."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker whose job has ended meanwhile
            connections = process.net_connections(kind="inet")
            found += [each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN]
    return found


def beyond_loopback(addresses: Iterable[str]) -> list[str]:
    """Those of `addresses` that other machines could reach."""
    return [address for address in addresses if not _is_loopback(address)]


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return bool((getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback)
