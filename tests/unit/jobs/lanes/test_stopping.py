"""A signal asks a job to end in order."""

from __future__ import annotations

import os
import signal

import pytest

from jobs.lanes.stopping import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_does_not_wait(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(number, signal.default_int_handler)  # under `nohup` SIGHUP would be ignored
    stop = StopSignal()
    try:
        with stop.listening("submit it again"):
            os.kill(os.getpid(), number)
            assert stop.requested
            assert "submit it again" in capsys.readouterr().out
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_a_closed_terminal_stays_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopSignal()
    try:
        with stop.listening("submit it again"):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not stop.requested
