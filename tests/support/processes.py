"""What processes are called, and where they listen; one that ends meanwhile is left out."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable

import psutil


def title(process: psutil.Process) -> str:
    """The command line of a process, which Ray's workers replace by what they do; empty where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def listening(processes: Iterable[psutil.Process]) -> list[str]:
    """The IP address of every listening socket of these processes."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = process.net_connections(kind="inet")
            found += [each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN]
    return found


def beyond_loopback(addresses: Iterable[str]) -> list[str]:
    """Those of `addresses` that other machines could reach."""
    return [address for address in addresses if not _is_loopback(address)]


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return bool((getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback)
