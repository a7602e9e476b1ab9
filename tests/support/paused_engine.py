"""An engine that stops between two denoising steps until a test lets it go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from serving.engine.engine import Engine


class Pause:
    """Denoising steps that were begun, and the way on."""

    def __init__(self, after: int) -> None:
        self.steps = 0
        self._after = after
        self._going = threading.Event()

    def go_on(self) -> None:
        """Let the engine take the steps that wait, and all further ones."""
        self._going.set()

    def before_step(self) -> None:
        """Called by the engine's loop."""
        if self.steps >= self._after:
            self._going.wait(120)
        self.steps += 1


@contextmanager
def paused(engine: Engine, after: int = 0) -> Iterator[Pause]:
    """The engine begins `after` steps, then none before `Pause.go_on` or the end of the context."""
    pause, step = Pause(after), engine._denoiser.step

    def paused_step() -> object:
        pause.before_step()
        return step()

    with patch.object(engine._denoiser, "step", paused_step):
        try:
            yield pause
        finally:
            pause.go_on()
