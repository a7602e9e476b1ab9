"""Whose request is next."""

from serving.engine.fair_queue import FairQueue


def filled(*items: str) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue()
    for item in items:
        queue.put(item[0], item)
    return queue


def taken(queue: FairQueue[str]) -> list[str]:
    order = []
    while (item := queue.peek()) is not None:
        assert queue.pop() == item
        order.append(item)
    return order


def test_users_take_turns_and_keep_their_own_order() -> None:
    assert taken(filled("a1", "a2", "a3", "a4", "b1", "c1", "b2")) == [
        "a1",
        "b1",
        "c1",
        "a2",
        "b2",
        "a3",
        "a4",
    ]


def test_a_newcomer_waits_for_one_round_at_most() -> None:
    queue = filled(*(f"a{number}" for number in range(1000)))
    queue.pop()
    queue.put("b", "b1")
    assert taken(queue)[:2] == ["a1", "b1"]


def test_what_has_gone_leaves_nothing_behind() -> None:
    queue = filled("a1", "b1", "a2", "b2", "c1")
    assert queue.remove(lambda item: item[0] == "b" or item == "a1") == ["a1", "b1", "b2"]
    assert len(queue) == 2
    assert taken(queue) == ["a2", "c1"]
    assert queue.peek() is None and len(queue) == 0
