"""What a comparison of two prompts finds in their words, whatever a sentence embedding makes of them."""

from collections.abc import Callable

import pytest

from serving.router.embedding import Embedder
from serving.router.word_comparison import Comparison, Differences, comparisons
from serving.router.word_matching import Prompt

LYING = "a person lying on the grass"
Compared = Callable[[str, str], Comparison]
"""Compares a registered text with another."""


@pytest.fixture(scope="session")
def compared(embedder: Embedder) -> Compared:
    """Compares two texts."""

    def compare_texts(registered: str, asked: str) -> Comparison:
        (found,) = comparisons([Prompt.of(registered, embedder)], Prompt.of(asked, embedder))
        return found

    return compare_texts


def test_a_prompt_may_take_words_from_several_registered_texts(embedder: Embedder) -> None:
    texts = ("a boy tying his shoelaces on a porch", "a boy lacing his shoes on the veranda")
    registered = [Prompt.of(text, embedder) for text in texts]
    asked = Prompt.of("a boy lacing his shoelaces on a porch", embedder)
    alone = [differences(found) for text in registered for found in comparisons([text], asked)]
    together = [differences(found) for found in comparisons(registered, asked)]
    assert min(each.doubts for each in together) < 0.1 < min(each.doubts for each in alone)


def differences(comparison: Comparison) -> Differences:
    assert comparison.differences is not None, comparison.refusal
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
    found = compared(LYING, asked)
    assert reason in (found.refusal or found.contradiction)


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        ("a barber shaving a customer", "a customer shaving a barber"),
        ("a nurse bandaging a soldier's arm", "a soldier bandaging a nurse's arm"),
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
    found = compared(registered, asked)
    assert found.refusal or found.contradiction


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        ("a barber shaving a customer", "a customer being shaved by a barber"),
        ("a tractor towing a caravan", "a caravan towed by a tractor"),
        ("a cat and a dog on a bench", "a dog and a cat on a bench"),
        ("hands threading a needle", "two hands threading a needle"),
        ("a boy tying his shoelaces", "a boy kneeling down to tie his shoe laces"),
        ('a sign that says "Open"', 'a sign with the text "OPEN"'),
        ("a cyclist mending a tyre", "a cyclist stopped at a kerb to mend a tyre"),
        ("a smith hammering a horseshoe", "a smith hammering a horse shoe"),
    ],
)
def test_another_order_or_form_leaves_no_doubt(compared: Compared, registered: str, asked: str) -> None:
    found = differences(compared(registered, asked))
    assert (found.doubts, found.relations, found.actions, found.wished) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("asked", "attribute"),
    [
        ("a person lying under the grass", "relations"),
        ("a person afraid of lying on the grass", "wished"),
        ("a person trying to lie on the grass", "wished"),
    ],
)
def test_what_is_added_or_moved_is_counted(compared: Compared, asked: str, attribute: str) -> None:
    assert getattr(differences(compared(LYING, asked)), attribute) > 0
    assert getattr(differences(compared(LYING, LYING)), attribute) == 0


@pytest.mark.parametrize(
    "asked",
    [
        "a hedgehog eating a heap of leaves",
        "a hedgehog crouching on a kerb, eating leaves",
        "a hedgehog eating leaves made of paper",
    ],
)
def test_measures_poses_and_participles_add_no_action(compared: Compared, asked: str) -> None:
    found = differences(compared("a hedgehog eating leaves", asked))
    assert (found.doubts, found.actions) == (0, 0)


def test_what_a_subject_wears_is_a_detail(compared: Compared) -> None:
    registered = "a smith in a leather apron hammering a sword on an anvil"
    without = differences(compared(registered, "a smith hammering a sword on an anvil"))
    assert without.place == 0 and without.details > 0
    assert differences(compared(registered, "a smith in a leather apron hammering a sword")).place > 0


@pytest.mark.parametrize(
    ("registered", "synonym", "other"),
    [
        ("a boy tying his shoelaces", "a boy lacing up his shoelaces", "a boy cutting his shoelaces"),
        ("a tractor towing a caravan", "a tractor pulling a caravan", "a tractor overtaking a caravan"),
        ("a cyclist mending a tyre", "a cyclist repairing a tire", "a cyclist throwing a tyre"),
        ("a barber shaving a customer", "a barber shaving a man", "a barber shaving a sheep"),
        ("a dog on the porch", "a dog on the veranda", "a dog on the roof"),
        ("three mountaineers on ice", "three mountainers on ice", "three violinists on ice"),
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
