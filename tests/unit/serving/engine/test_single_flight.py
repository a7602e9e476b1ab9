"""Values that are made once for all who ask, kept within a budget, and refused for a while where they cannot be made."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.engine.single_flight import SingleFlightCache


class Maker:
    """Makes strings as long as their key says, when it is allowed to, and counts."""

    def __init__(self) -> None:
        self.made: Counter[int] = Counter()
        self.may = threading.Event()
        self.may.set()
        self.broken: Exception | None = None

    def __call__(self, key: int) -> str:
        self.made[key] += 1
        self.may.wait(60)
        if self.broken is not None:
            raise self.broken
        return "x" * key


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def cache(
    maker: Maker,
    executor: ThreadPoolExecutor,
    *,
    budget: int = 100,
    refused: float = 0.0,
    clock: Clock | None = None,
) -> SingleFlightCache[int, str]:
    return SingleFlightCache(
        maker, size=len, budget=budget, executor=executor, failure_seconds=refused, clock=clock or Clock()
    )


def test_all_who_ask_at_once_share_one_flight(executor: ThreadPoolExecutor) -> None:
    maker = Maker()
    maker.may.clear()
    kept = cache(maker, executor)
    flights = [kept.get(7) for _ in range(50)]
    other = kept.get(3)
    maker.may.set()
    assert {flight.result(10) for flight in flights} == {"x" * 7} and other.result(10) == "xxx"
    assert kept.get(7).result(10) == "x" * 7
    assert maker.made == {7: 1, 3: 1}


def test_what_was_not_asked_for_longest_goes_first(executor: ThreadPoolExecutor) -> None:
    maker = Maker()
    kept = cache(maker, executor, budget=60)
    for key in (10, 20, 30, 10, 25):  # 25 takes the place of 20, which was asked for before 10
        kept.get(key).result(10)
    assert [key for key in (10, 20, 25, 30) if key in kept] == [10, 25]
    assert kept.size_bytes == 35 and len(kept) == 2


def test_what_is_larger_than_the_budget_is_made_and_not_kept(executor: ThreadPoolExecutor) -> None:
    maker = Maker()
    kept = cache(maker, executor, budget=10)
    kept.get(5).result(10)
    assert kept.get(11).result(10) == "x" * 11
    assert 5 in kept and 11 not in kept and kept.size_bytes == 5


def test_what_cannot_be_made_is_refused_for_a_while(executor: ThreadPoolExecutor) -> None:
    maker, clock = Maker(), Clock()
    maker.broken = ValueError("no such thing")
    kept = cache(maker, executor, refused=30, clock=clock)
    for _ in range(3):
        with pytest.raises(ValueError, match="no such thing"):
            kept.get(1).result(10)
    assert maker.made[1] == 1
    maker.broken = None
    clock.now = 31
    assert kept.get(1).result(10) == "x" and maker.made[1] == 2
