"""Ports: a free one is found, a taken one is refused by name."""

import os
import socket

import pytest

from cluster import ports
from corrector.errors import UserError


def test_a_chosen_port_is_free_and_not_chosen_twice() -> None:
    taken: set[int] = set()
    chosen = [ports.choose("port", None, taken=taken) for _ in range(20)]
    assert len(set(chosen)) == 20
    assert taken == set(chosen)
    assert all(ports.is_free(port) for port in chosen)


@pytest.mark.parametrize("address", [ports.LOOPBACK, "0.0.0.0"])
def test_a_taken_port_is_refused_with_the_name_of_its_holder(address: str) -> None:
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=rf"dashboard port {port} is taken .*pid {os.getpid()}"):
            ports.choose("dashboard port", port, taken=set())
    assert ports.choose("dashboard port", port, taken=set()) == port


def test_a_port_is_not_given_for_two_purposes() -> None:
    taken: set[int] = set()
    port = ports.choose("port", None, taken=taken)
    with pytest.raises(UserError, match=f"dashboard port {port} is taken"):
        ports.choose("dashboard port", port, taken=taken)


@pytest.mark.parametrize("port", [0, 80, 65536])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(UserError, match="not a port"):
        ports.choose("port", port, taken=set())
