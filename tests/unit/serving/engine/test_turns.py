"""Whose request is next."""

from serving.engine.turns import Turns


def filled(*items: str) -> Turns[str]:
    turns: Turns[str] = Turns()
    for item in items:
        turns.put(item[0], item)
    return turns


def taken(turns: Turns[str]) -> list[str]:
    order = []
    while (item := turns.next()) is not None:
        assert turns.take() == item
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
    turns = filled(*(f"a{number}" for number in range(1000)))
    turns.take()
    turns.put("b", "b1")
    assert taken(turns)[:2] == ["a1", "b1"]


def test_what_has_gone_leaves_nothing_behind() -> None:
    turns = filled("a1", "b1", "a2", "b2", "c1")
    assert turns.drop(lambda item: item[0] == "b" or item == "a1") == ["a1", "b1", "b2"]
    assert len(turns) == 2
    assert taken(turns) == ["a2", "c1"]
    assert turns.next() is None and len(turns) == 0
