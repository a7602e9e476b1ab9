"""SingleFlightCache: values that are costly to make, made once for all who ask at the same time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlightCache(Generic[Key, Value]):
    """A cache of at most `budget` bytes that drops what was not asked for longest; safe to use from any thread.

    Whoever asks for what is being made waits for it with the others. What could not be made is remembered for
    `refused_seconds`, and refused at once meanwhile. A value in use stays alive with its users; it only leaves the count.
    """

    def __init__(
        self,
        make: Callable[[Key], Value],
        *,
        size: Callable[[Value], int],
        budget: int,
        executor: Executor,
        refused_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._size = size
        self._budget = budget
        self._executor = executor
        self._refused_seconds = refused_seconds
        self._clock = clock
        self._lock = Lock()
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._flights: dict[Key, Future[Value]] = {}
        self._refused: dict[Key, tuple[float, BaseException]] = {}
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """Of the values that it keeps."""
        return self._bytes

    def __contains__(self, key: Key) -> bool:
        with self._lock:
            return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Future[Value]:
        """The value of `key`, made now if need be; whoever made it wrong passes its exception on."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return _done(self._values[key])
            if key in self._flights:
                return self._flights[key]
            until, error = self._refused.get(key, (0.0, None))
            if error is not None and self._clock() < until:
                return _failed(error)
            flight: Future[Value] = Future()
            self._flights[key] = flight
        self._executor.submit(self._fly, key, flight)
        return flight

    def _fly(self, key: Key, flight: Future[Value]) -> None:
        try:
            value = self._make(key)
        except BaseException as error:
            with self._lock:
                del self._flights[key]
                self._refuse(key, error)
            flight.set_exception(error)
            return
        with self._lock:
            del self._flights[key]
            self._refused.pop(key, None)
            self._keep(key, value)
        flight.set_result(value)

    def _refuse(self, key: Key, error: BaseException) -> None:
        now = self._clock()
        self._refused = {other: (until, why) for other, (until, why) in self._refused.items() if until > now}
        if self._refused_seconds:
            self._refused[key] = (now + self._refused_seconds, error)

    def _keep(self, key: Key, value: Value) -> None:
        size = self._size(value)
        if size > self._budget:
            return
        self._values[key] = value
        self._bytes += size
        while self._bytes > self._budget:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= self._size(dropped)


def _done(value: Value) -> Future[Value]:
    future: Future[Value] = Future()
    future.set_result(value)
    return future


def _failed(error: BaseException) -> Future[Value]:
    future: Future[Value] = Future()
    future.set_exception(error)
    return future
