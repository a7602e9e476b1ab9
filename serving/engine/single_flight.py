"""SingleFlightCache: a cache in which concurrent callers for a key share one computation."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlightCache(Generic[Key, Value]):
    """A least-recently-used cache of at most `budget` bytes; thread-safe.

    Callers for a key that is being computed share one future. A failure is cached and raised again for `failure_seconds`; of
    more than `max_failures` the oldest are dropped.
    """

    def __init__(
        self,
        compute: Callable[[Key], Value],
        *,
        size: Callable[[Value], int],
        budget: int,
        executor: Executor,
        failure_seconds: float = 0.0,
        max_failures: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compute = compute
        self._size = size
        self._budget = budget
        self._executor = executor
        self._failure_seconds = failure_seconds
        self._max_failures = max_failures
        self._clock = clock
        self._lock = Lock()
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._pending: dict[Key, Future[Value]] = {}
        self._failures: OrderedDict[Key, tuple[float, BaseException]] = OrderedDict()
        """With the time until which each counts, oldest first."""
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """Size of the cached values."""
        return self._bytes

    @property
    def pending(self) -> int:
        """Number of keys that are being computed."""
        return len(self._pending)

    def __contains__(self, key: Key) -> bool:
        with self._lock:
            return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Future[Value]:
        """A future of the value of `key`, or of the exception that `compute` raised; computes it if it is not cached."""
        future: Future[Value] = Future()
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                future.set_result(self._values[key])
                return future
            if key in self._pending:
                return self._pending[key]
            until, error = self._failures.get(key, (0.0, None))
            if error is not None and self._clock() < until:
                future.set_exception(error)
                return future
            self._pending[key] = future
        self._executor.submit(self._run, key, future)
        return future

    def _run(self, key: Key, future: Future[Value]) -> None:
        try:
            value = self._compute(key)
        except BaseException as error:
            with self._lock:
                del self._pending[key]
                self._keep_failure(key, error)
            future.set_exception(error)
            return
        with self._lock:
            del self._pending[key]
            self._failures.pop(key, None)
            self._keep(key, value)
        future.set_result(value)

    def _keep_failure(self, key: Key, error: BaseException) -> None:
        now = self._clock()
        self._failures.pop(key, None)
        if self._failure_seconds:
            self._failures[key] = (now + self._failure_seconds, error)
        while self._failures:
            until, _ = next(iter(self._failures.values()))
            if until > now and len(self._failures) <= self._max_failures:
                break
            self._failures.popitem(last=False)

    def _keep(self, key: Key, value: Value) -> None:
        size = self._size(value)
        if size > self._budget:
            return
        self._values[key] = value
        self._bytes += size
        while self._bytes > self._budget:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= self._size(dropped)
