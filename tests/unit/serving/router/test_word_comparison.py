"""What contradicts a registered prompt, whatever an embedding makes of it."""

import pytest

from corrector.prompts.variations.prompt_parsing import read
from serving.router.word_comparison import closest, compare

LYING = "a person lying on the grass"


def contradiction(registered: str, asked: str) -> str | None:
    """Why the second cannot mean the first."""
    return compare(read(registered), read(asked)).contradiction


@pytest.mark.parametrize(
    "asked",
    [
        "A lady reclining in a meadow.",
        "on the lawn lies a man",
        "a photo of a smiling woman in a red dress lying on the grass in a park, golden hour",
    ],
)
def test_known_synonyms_leave_no_doubt(asked: str) -> None:
    comparison = compare(read(LYING), read(asked))
    assert comparison.contradiction is None
    assert comparison.doubts == (0, 0, 0)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("a person not lying on the grass", 'it says "not"'),
        ("nobody is lying on the grass", 'it says "nobody"'),
        ("a person who isn’t lying on the grass", 'it says "isn\'t"'),
        ("a person afraid of lying on the grass", '"lying" does not happen in it'),
        ("grass lying on a person", '"on a person" stands in it otherwise than "a person"'),
        ("a person lying under the grass", '"under the grass" stands in it otherwise than "on the grass"'),
        ("a person standing on the grass", '"standing" makes it another'),
        ("a person lying on the street", '"street" makes it another'),
        ("a dog lying on the grass", '"dog" makes it another'),
        ("a person and a dog lying on the grass", '"dog" makes it another'),
        ("a person and a gnome lying on the grass", '"gnome" is with it'),
        ("a person lying on the grass with a gnome", '"gnome" is with it'),
        ("two people lying on the grass", '"two" makes it another'),
        ("people lying on the grass", '"people" makes it another'),
        ("a person on the grass", 'nothing says "lying"'),
        ("a person lying", 'nothing says "grass"'),
        ('a person lying on the grass, text "hello"', 'the text to show is "hello", not none'),
    ],
)
def test_what_is_known_to_differ_is_a_contradiction(asked: str, reason: str) -> None:
    found = contradiction(LYING, asked)
    assert found is not None
    assert reason in found


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        ("a man holding a cup", "a cup holding a man"),
        ("a dog chasing a cat", "a cat chasing a dog"),
        ("a cup of coffee", "a coffee of cup"),
        ("a woman lying on the grass", "a person lying on the grass"),
        ("a red car", "a blue car"),
        ("two hands", "four hands"),
        ('a sign that says "open"', 'a sign that says "closed"'),
        ("a man who is not smiling", "a man smiling"),
    ],
)
def test_exchanged_and_more_general_and_otherwise_different(registered: str, asked: str) -> None:
    assert contradiction(registered, asked) is not None


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        ("a cat and a dog on a bench", "a dog and a cat on a bench"),
        ("a cup of coffee", "a coffee cup"),
        ('a sign that says "Open"', 'a sign with the text "OPEN"'),
        ("a man who is not smiling", "a man not smiling"),
        ("a red car", "a red automobile"),
    ],
)
def test_the_same_in_another_order_or_form(registered: str, asked: str) -> None:
    assert contradiction(registered, asked) is None


def test_unknown_words_replace_add_or_describe() -> None:
    registered = read(LYING)
    assert compare(registered, read("a person vegetating on the grass")).doubts == (1, 0, 0)
    assert compare(registered, read("a person lying zonked on the grass")).doubts == (0, 1, 0)
    assert compare(registered, read("a freckled person lying on the grass, volumetric fog")).doubts == (
        0,
        0,
        3,
    )


def test_the_closest_registered_text_counts() -> None:
    registered = [read(LYING), read("a person vegetating on the grass")]
    assert closest(registered, read("someone vegetating on the lawn")).doubts == (0, 0, 0)
    assert closest(registered, read("someone standing on the lawn")).contradiction is not None
