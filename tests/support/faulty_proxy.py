"""A connection to a server that can be made to fail: to fall silent, to be refused, or to be denied by the server."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from urllib.parse import urlsplit


class FaultyProxy:
    """Listens at `url` for the duration of the context, and passes everything on until it is told otherwise.

    Attributes:
        url: The same through all faults.
        port: Of `url`.
        stalled: Set once it has fallen silent.
        passed: Bytes of answers that it has passed on.
    """

    def __init__(self, upstream: str) -> None:
        """`upstream`: URL of the server."""
        address = urlsplit(upstream)
        self._upstream = (address.hostname or "", address.port or 80)
        self._lock = threading.Lock()
        self._left = math.inf
        self._mangling = False
        self._sockets: list[socket.socket] = []
        self.stalled = threading.Event()
        self.passed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultyProxy:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()

    def stall(self, *, after: int) -> None:
        """Pass so many more bytes of answers on, over all connections together, then none."""
        with self._lock:
            self._left = after

    def refuse(self) -> None:
        """Cut all connections and take no more."""
        self._cut(self._listener)
        self._cut(*self._sockets)

    def deny(self) -> None:
        """Spoil the signature of every request from now on, so that the server itself denies it."""
        self._mangling = True

    def mend(self) -> None:
        """Cut all connections and pass on again what comes over new ones."""
        self.refuse()
        self._left, self._mangling, self._sockets = math.inf, False, []
        self.stalled.clear()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listen()

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._upstream)
                self._sockets += [near, far]
                threading.Thread(target=self._requests, args=(near, far), daemon=True).start()
                threading.Thread(target=self._answers, args=(far, near), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data.replace(b"Signature=", b"Signature=0") if self._mangling else data)
        self._cut(far)

    def _answers(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                with self._lock:
                    self._left -= len(data)
                    if self._left < 0:
                        self.stalled.set()
                        return
                    self.passed += len(data)
                near.sendall(data)
        self._cut(near)

    @staticmethod
    def _cut(*opened: socket.socket) -> None:
        for one in opened:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
