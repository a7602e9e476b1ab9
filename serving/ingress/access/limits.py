"""RateLimits: requests per minute and concurrent images of a key. Each process counts separately."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.ingress.access.authentication import Caller
from serving.ingress.http.errors import ApiError


class RateLimits:
    """Token buckets for requests, counters for images; for one event loop.

    A bucket holds a minute's requests and fills evenly: after a pause, a minute's requests may come at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """By the key's name: requests left, and the time of that count."""
        self._images: Counter[str] = Counter()

    def count_request(self, caller: Caller) -> None:
        """Take one request from the key's bucket.

        Raises:
            ApiError: 429: the bucket is empty.
        """
        rate = caller.requests_per_minute
        if rate is None:
            return
        now = self._clock()
        left, since = self._buckets.get(caller.name, (float(rate), now))
        left = min(float(rate), left + (now - since) * rate / 60)
        if left < 1:
            self._buckets[caller.name] = left, now
            raise ApiError(
                429,
                f'the API key "{caller.name}" may send {rate} requests per minute',
                code="rate_limit_exceeded",
                retry_after=(1 - left) * 60 / rate,
            )
        self._buckets[caller.name] = left - 1, now

    @contextmanager
    def images(self, caller: Caller, count: int) -> Iterator[None]:
        """Count `count` images as concurrent inside the block.

        Raises:
            ApiError: 429: too many images at the moment; 400: more images than the key's limit.
        """
        most = caller.concurrent_images
        if most is not None and self._images[caller.name] + count > most:
            message = f'the API key "{caller.name}" may have {most} images under way'
            if count > most:
                raise ApiError(400, message, code="invalid_value", param="n")
            raise ApiError(429, message, code="concurrency_limit_exceeded", retry_after=1)
        self._images[caller.name] += count
        try:
            yield
        finally:
            self._images[caller.name] -= count
            if not self._images[caller.name]:
                del self._images[caller.name]
