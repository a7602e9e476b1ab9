"""Waiting for an event, with a bound that even a busy machine keeps."""

import time
from collections.abc import Callable

LONG = 900.0
"""Seconds that a whole job on several nodes takes at most on the slowest machine, with other clusters beside it."""


def wait_until(
    condition: Callable[[], object],
    seconds: float = 240.0,
    otherwise: Callable[[], str] | None = None,
    *,
    every: float = 0.02,
) -> None:
    """Return as soon as `condition` holds; AssertionError, with what `otherwise` says, where it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        late = time.monotonic() > deadline
        assert not late, otherwise() if otherwise else f"it did not come about within {seconds:g} s"
        time.sleep(every)
