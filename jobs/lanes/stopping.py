"""Handles SIGINT, SIGTERM and SIGHUP, so that a job writes checkpoints before it ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Records whether this job received SIGINT, SIGTERM or SIGHUP (a terminal that was closed)."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def listening(self, advice: str) -> Iterator[None]:
        """Handle signals within the block: the first sets `requested`, a second raises. Enter after `ray.init`.

        Python handles signals in a process's main thread only; in other threads this does nothing. If SIGHUP is ignored, as
        under `nohup`, it stays ignored.

        Args:
            advice: How to resume later; printed at the first signal.
        """

        def ask(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGHUP:
                _discard_output()
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True
            print(f"stopping: what is under way is kept, {advice}", flush=True)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        previous = {number: signal.signal(number, ask) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _discard_output() -> None:
    """Discard further output, since writes to a closed terminal fail."""
    for stream in (sys.stdout, sys.stderr):
        if stream.isatty():
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
