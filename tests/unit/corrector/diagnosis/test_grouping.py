"""Prompts that differ in spelling are one; prompts that differ in meaning are not."""

import pytest

from corrector.diagnosis import near_identical

LONG = "a photo of a person lying on the grass beside a red car, soft light, highly detailed, 4k"


@pytest.mark.parametrize(
    "other",
    [
        "A person  lying on the grass",
        "a person lying on the grass.",
        "Person lying on grass",
        "ａ person lying on the grass",  # full-width
        "a per\u200bson lying on the grass",  # zero-width space
    ],
)
def test_spellings_are_grouped(other: str) -> None:
    assert len(near_identical(["a person lying on the grass", other])) == 1


@pytest.mark.parametrize(
    "other",
    [
        "a person standing on the grass",
        "a person not lying on the grass",
        "the grass lying on a person",
        "two persons lying on the grass",
        "naïve",
        "!!!",
    ],
)
def test_meanings_are_not(other: str) -> None:
    assert near_identical(["a person lying on the grass", other]) == [
        ("a person lying on the grass",),
        (other,),
    ]


def test_one_word_more_makes_a_long_prompt_no_other() -> None:
    more, negated = LONG.replace("soft", "very soft"), LONG.replace("lying", "not lying")
    assert near_identical([LONG, more, negated]) == [(LONG, more), (negated,)]


def test_repeated_prompts_count_once_in_the_order_of_the_first() -> None:
    assert near_identical(["b", "a cat", "B ", "cat!", "b"]) == [("b",), ("a cat", "cat!")]
    assert near_identical([]) == []
