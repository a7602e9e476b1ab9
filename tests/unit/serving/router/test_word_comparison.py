"""What a comparison of two prompts finds in their words, whatever a sentence embedding makes of them."""

from collections.abc import Callable

import pytest

from serving.router.embedding import Embedder
from serving.router.word_comparison import Comparison, Differences, Prompt, compare

LYING = "a person lying on the grass"
Compared = Callable[[str, str], Comparison]
"""Compares a registered text with another."""


@pytest.fixture(scope="session")
def compared(embedder: Embedder) -> Compared:
    """Compares two texts."""

    def compare_texts(registered: str, asked: str) -> Comparison:
        return compare(Prompt.of(registered, embedder), Prompt.of(asked, embedder))

    return compare_texts


def differences(comparison: Comparison) -> Differences:
    assert comparison.differences is not None, comparison.contradiction
    return comparison.differences


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("a person not lying on the grass", 'it says "not"'),
        ("nobody is lying on the grass", 'it says "nobody"'),
        ("a person who isn’t lying on the grass", 'it says "isn\'t"'),
        ("two people lying on the grass", "one"),
        ("people lying on the grass", "more than one"),
        ("grass lying on a person", "exchanged"),
        ('a person lying on the grass, text "hello"', 'the text to show is "hello", not none'),
    ],
)
def test_contradictions_say_why(compared: Compared, asked: str, reason: str) -> None:
    assert reason in compared(LYING, asked).contradiction


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        ("a barber shaving a customer", "a customer shaving a barber"),
        ("a tractor towing a caravan", "a caravan towing a tractor"),
        ("two hands", "four hands"),
        ("three mountaineers on a glacier", "mountaineers on a glacier"),
        ('a sign that says "open"', 'a sign that says "closed"'),
        ("a man who is not smiling", "a man smiling"),
    ],
)
def test_roles_numbers_texts_and_negations_contradict(
    compared: Compared, registered: str, asked: str
) -> None:
    assert compared(registered, asked).contradiction


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        ("a barber shaving a customer", "a customer being shaved by a barber"),
        ("a tractor towing a caravan", "a caravan towed by a tractor"),
        ("a cat and a dog on a bench", "a dog and a cat on a bench"),
        ("hands threading a needle", "two hands threading a needle"),
        ("a boy tying his shoelaces", "a boy kneeling down to tie his shoe laces"),
        ('a sign that says "Open"', 'a sign with the text "OPEN"'),
    ],
)
def test_another_order_or_form_leaves_no_doubt(compared: Compared, registered: str, asked: str) -> None:
    found = differences(compared(registered, asked))
    assert (found.doubts, found.relations, found.living, found.wished) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("asked", "attribute"),
    [
        ("a person lying under the grass", "relations"),
        ("a person and a gnome lying on the grass", "living"),
        ("a person afraid of lying on the grass", "wished"),
        ("a person trying to lie on the grass", "wished"),
        ("a person lying on the grass in an airport", "places"),
        ("a freckled person lying on the grass", "descriptions"),
    ],
)
def test_what_is_added_or_moved_is_counted(compared: Compared, asked: str, attribute: str) -> None:
    assert getattr(differences(compared(LYING, asked)), attribute) > 0
    assert getattr(differences(compared(LYING, LYING)), attribute) == 0


@pytest.mark.parametrize(
    ("registered", "synonym", "other"),
    [
        ("a boy tying his shoelaces", "a boy lacing up his shoelaces", "a boy cutting his shoelaces"),
        ("a tractor towing a caravan", "a tractor pulling a caravan", "a tractor overtaking a caravan"),
        ("a cyclist mending a tyre", "a cyclist repairing a tire", "a cyclist throwing a tyre"),
        ("a dog on the porch", "a dog on the veranda", "a dog on the roof"),
        ("an alpinist on a glacier", "a mountaineer on a glacier", "a violinist on a glacier"),
        (
            "a hedgehog in a pile of leaves",
            "a hegdehog in a heap of leaves",
            "a squirrel in a pile of leaves",
        ),
    ],
)
def test_a_synonym_leaves_less_doubt_than_another_word(
    compared: Compared, registered: str, synonym: str, other: str
) -> None:
    near, far = (differences(compared(registered, text)) for text in (synonym, other))
    assert near.doubts + near.place + 0.3 < far.doubts + far.place
