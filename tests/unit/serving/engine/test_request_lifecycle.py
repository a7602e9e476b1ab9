"""Requests wait in turns, and end early where nobody waits for them, too many do, or the engine fails."""

import pickle
import threading
from concurrent.futures import CancelledError, Future
from functools import partial
from pathlib import Path

import pytest
import torch

from serving.adapter_identity import AdapterIdentity
from serving.engine.engine import Engine
from serving.engine.request import DeadlineMissed, EngineFailure, GeneratedImage, Overloaded
from tests.support.engine_requests import SPEC, draw, request, settings
from tests.support.paused_engine import paused
from tests.support.served_adapters import FolderSource, write_adapter
from tests.support.waiting import wait_until


def test_a_cancelled_request_frees_its_rows_at_the_next_step(
    engine: Engine, adapters: list[AdapterIdentity]
) -> None:
    draw(engine, *(request(adapter=adapter) for adapter in adapters[:4]))  # they are fetched now
    futures = [
        engine.submit(request(seed=seed, num_inference_steps=100, adapter=adapters[seed]))
        for seed in range(4)
    ]
    wait_until(lambda: engine.stats().drawing == 4)
    waiting = engine.submit(request(num_inference_steps=1))
    assert all(future.cancel() for future in futures[:2])
    assert waiting.result(60).pixels.shape == (32, 32, 3)
    for future in futures[2:]:
        future.cancel()
    wait_until(lambda: engine.stats().drawing == 0 and engine.stats().waiting == 0)
    with pytest.raises(CancelledError):
        futures[0].result(0)


def test_a_missed_deadline_stops_the_drawing(engine: Engine) -> None:
    long = request(num_inference_steps=100, guidance_scale=3.0, height=64, width=64, timeout=0.2)
    with pytest.raises(DeadlineMissed, match=r"not done within 0\.2 s"):
        engine.submit(long).result(60)
    wait_until(lambda: engine.stats().drawing == 0)


def test_a_deadline_counts_while_an_adapter_is_fetched(
    engine: Engine, held_source: FolderSource, tmp_path: Path
) -> None:
    slow = write_adapter(tmp_path, "slow", seed=21)
    held_source.folders[slow] = tmp_path
    with pytest.raises(DeadlineMissed):
        engine.submit(request(adapter=slow, timeout=0.2)).result(60)
    held_source.available.set()
    assert engine.submit(request(adapter=slow)).result(60).adapter == slow


def test_users_are_served_in_turns(engine: Engine) -> None:
    order: list[str] = []
    futures: list[Future[GeneratedImage]] = []
    with paused(engine):
        for user in ["greedy"] * 12 + ["modest"]:
            futures.append(engine.submit(request(user=user, seed=len(futures))))
            futures[-1].add_done_callback(partial(lambda user, _: order.append(user), user))
    for future in futures:
        future.result(60)
    # Four are drawn already, and one of the next four is the other user's.
    wait_until(lambda: len(order) == 13)
    assert order.index("modest") < 8


def test_too_many_are_told_to_come_again(engine: Engine) -> None:
    accepted: list[Future[GeneratedImage]] = []
    refusal: Overloaded | None = None
    with paused(engine):
        while refusal is None and len(accepted) < 100:
            try:
                accepted += [engine.submit(request(seed=len(accepted)))]
            except Overloaded as error:
                refusal = error
    assert refusal is not None and refusal.retry_after >= 1
    waiting = engine.settings.max_waiting
    assert waiting <= len(accepted) <= waiting + engine.settings.row_buckets[-1]
    assert all(future.result(60) for future in accepted)
    draw(engine, request())


def test_an_overload_keeps_its_time_between_processes() -> None:
    error = pickle.loads(pickle.dumps(Overloaded("too much", retry_after=7.5)))
    assert (str(error), error.retry_after) == ("too much", 7.5)


def test_a_step_that_fails_ends_what_was_drawn_and_the_next_is_drawn(
    source: FolderSource, adapters: list[AdapterIdentity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device runs out of memory once; then three times in a row, after which the engine gives up and says so."""
    engine = Engine(SPEC, source, settings(tmp_path))
    faults = [1]
    step = engine._denoiser.step

    def failing() -> object:
        if faults[0]:
            faults[0] -= 1
            raise torch.OutOfMemoryError("out of memory")
        return step()

    monkeypatch.setattr(engine._denoiser, "step", failing)
    try:
        with pytest.raises(EngineFailure, match="OutOfMemoryError: out of memory"):
            engine.submit(request(adapter=adapters[0])).result(60)
        assert draw(engine, request(adapter=adapters[0]))[0].adapter == adapters[0] and engine.healthy
        faults[0] = 3
        for _ in range(3):
            with pytest.raises(EngineFailure):
                engine.submit(request()).result(60)
        wait_until(lambda: not engine.healthy)
        with pytest.raises(EngineFailure, match="stopped"):
            engine.submit(request())
    finally:
        engine.close()


def test_a_step_that_hangs_makes_the_engine_one_to_be_replaced(source: FolderSource, tmp_path: Path) -> None:
    engine = Engine(SPEC, source, settings(tmp_path, stalled_seconds=0.2))
    try:
        with paused(engine):
            future = engine.submit(request())
            wait_until(lambda: not engine.healthy)
            with pytest.raises(EngineFailure, match="stopped"):
                engine.submit(request())
        assert future.result(60).pixels.shape == (32, 32, 3)
    finally:
        engine.close()


def test_closing_ends_everything(source: FolderSource, tmp_path: Path) -> None:
    engine = Engine(SPEC, source, settings(tmp_path))
    futures = [engine.submit(request(seed=seed, num_inference_steps=100)) for seed in range(8)]
    engine.close()
    for future in futures:
        with pytest.raises(EngineFailure, match="stopped"):
            future.result(60)
    assert [
        thread.name for thread in threading.enumerate() if thread.name == "denoising" and not thread.daemon
    ] == []
