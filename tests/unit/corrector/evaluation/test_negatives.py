"""Hard negatives that are drawn are near the prompt in words, have a picture of their own, and are measured nowhere else."""

import pytest

from corrector.evaluation.negatives import likely_negatives
from corrector.prompts import FailingPrompt, HyperParameters

LYING = "a person lying on the grass"
ALL = 40


def entry(prompt: str, **changes: object) -> FailingPrompt:
    values = {"exemplars": "exemplars", "hyperparameters": HyperParameters(preservation="none"), **changes}
    return FailingPrompt.model_validate({"prompt": prompt, **values})


def texts(prompt: str, count: int = ALL, **changes: object) -> list[str]:
    return [negative.text for negative in likely_negatives(entry(prompt, **changes), count)]


def test_each_kind_of_difference_has_its_turn() -> None:
    found = [negative.difference for negative in likely_negatives(entry(LYING), ALL)]

    assert found[:6] == ["action", "noun", "place"] * 2
    last = found.index("number")
    assert set(found[:last]) == {"action", "noun", "place"}
    assert set(found[last:]) == {"number", "extra"}, "only when the others are used up"


def test_the_first_of_each_kind_differ_from_the_prompt_in_nothing_else() -> None:
    for text in texts(LYING, 3):
        changed = [word for word, own in zip(text.split(), LYING.split(), strict=True) if word != own]
        assert len(changed) == 1, text


def test_those_that_are_given_come_first_the_nearest_in_words_before_others() -> None:
    given = ("a whole family asleep under a tent beside the lake", "a person lying on the roof")
    found = likely_negatives(entry(LYING, hard_negatives=given), 3)

    assert [negative.text for negative in found[:2]] == [given[1], given[0]]
    assert [negative.difference for negative in found] == ["given", "given", "action"]
    assert [negative.text for negative in likely_negatives(entry(LYING, hard_negatives=given), 1)] == [
        given[1]
    ]


def test_what_has_no_picture_of_its_own_is_not_drawn() -> None:
    for text in texts(LYING):
        words = set(text.replace(",", "").split())
        assert words.isdisjoint({"not", "nobody", "never", "nowhere", "without"}), "a negation"
        assert words.isdisjoint({"under", "behind", "far", "above", "front"}), "no relation of a place"
        assert words.isdisjoint({"park", "garden", "city", "rain"}), "a place that may have grass"
        assert not text.startswith(("a grass", "the grass")), "the grass lies on nobody"


@pytest.mark.parametrize(
    ("prompt", "exchanged"),
    [
        ("a dog chasing a cat in the garden", "a cat chasing a dog in the garden"),
        ("an astronaut riding a horse on the moon", "a horse riding an astronaut on the moon"),
    ],
)
def test_living_beings_exchange_their_roles(prompt: str, exchanged: str) -> None:
    assert exchanged in texts(prompt, 4)


def test_guard_prompts_and_paraphrases_are_left_out_in_other_words_too() -> None:
    free = texts(LYING)
    assert {"a person seated on the grass", "a person upright on the grass"} <= set(free)

    guards = ("a person sitting on the grass", "a person standing on the grass", free[1])
    guarded = texts(LYING, guard_prompts=guards)

    assert {"a person seated on the grass", "a person upright on the grass", free[1]}.isdisjoint(guarded)
    assert free[2] not in texts(LYING, paraphrases=(free[2],))


def test_the_same_entry_gives_the_same_ones_whatever_their_number() -> None:
    first = texts(LYING)
    likely_negatives.cache_clear()

    assert texts(LYING) == first
    assert texts(LYING, 4) == first[:4]
    assert len(set(first)) == len(first) == ALL
    assert texts(LYING, 0) == []


def test_a_prompt_of_unknown_words_gets_what_there_is() -> None:
    assert texts("!?") == []
    assert 0 < len(texts("a gargoyle brooding on a ledge", 4)) <= 4
