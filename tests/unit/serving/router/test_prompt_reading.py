"""What a prompt's words are read as."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.router.prompt_reading import Term, read


def term(prompt: str, word: str) -> Term:
    (found,) = (each for each in read(prompt).terms if each.word == word)
    return found


@pytest.mark.parametrize(
    ("prompt", "word", "role"),
    [
        ("a boy tying his shoelaces", "tying", "action"),
        ("a pole vaulter clears the bar", "clears", "action"),
        ("two hands thread a needle", "thread", "action"),
        ("crossing a glacier, three mountaineers", "crossing", "action"),
        ("a man helping a girl climb a tree", "climb", "action"),
        ("hammering a glowing horseshoe", "glowing", "modifier"),
        ("a pile of autumn leaves", "leaves", "thing"),
        ("a surrealist painting of a teapot", "painting", "thing"),
        ("a pole vaulter", "pole", "modifier"),
        ("glowing interlocking spirals", "interlocking", "modifier"),
        ("a hedgehog lies curled up", "lies", "action"),
        ("soot-covered walls, tongs", "walls", "thing"),
    ],
)
def test_roles(prompt: str, word: str, role: str) -> None:
    assert term(prompt, word).role == role


def test_what_belongs_to_a_term() -> None:
    assert ("lace_up", "v") in term("a boy lacing up his boots", "lacing").lemmas
    assert ("shoelace", "n") in term("tying his shoe laces", "laces").lemmas
    assert term("a dog under the old table", "table").relation == "under"
    assert term("a customer is shaved by a barber", "shaved").passive
    assert term("a dog afraid of swimming", "swimming").wished
    assert not term("a boy kneeling to tie his shoe", "tie").wished
    assert term("three mountaineers", "mountaineers").several
    assert term("three mountainers", "mountainers").several
    assert term("a pile of leaves", "pile").measure
    assert not term("a statue of a man", "statue").measure
    assert term("spirals made of wax", "made").describes
    assert not term("a pole-vaulter", "pole-vaulter").several


def test_stopping_is_a_negation_only_before_what_is_stopped() -> None:
    assert read("a cyclist stopped mending a tyre").negations == ("stopped",)
    assert read("a cyclist stopped at the roadside").negations == ()


def test_closed_classes_and_quotations_are_no_terms() -> None:
    reading = read('photo of two red signs, not new, that says "open late", 35mm')
    assert (reading.numbers, reading.colours, reading.negations, reading.quoted) == (
        ("two",),
        ("red",),
        ("not",),
        ("open late",),
    )
    assert [each.word for each in reading.terms if each.role == "thing"] == ["signs"]


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read(text: str) -> None:
    reading = read(text)
    assert all(reading.text[each.start : each.end] for each in reading.terms)
