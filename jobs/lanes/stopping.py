"""SIGINT and SIGTERM end a job in order: running work is checkpointed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Whether this job received SIGINT or SIGTERM."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def listening(self, advice: str) -> Iterator[None]:
        """Handle signals within the block: the first sets `requested`, a second raises. Enter after `ray.init`.

        Outside a process's main thread Python handles no signals, and this does nothing.

        Args:
            advice: How to go on later, printed when the first signal comes.
        """

        def ask(number: int, frame: FrameType | None) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True
            print(f"stopping: what is under way is kept, {advice}", flush=True)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
