"""Prompts that differ in spelling are one prompt; a whole-valued float is a whole number."""

import pytest

from corrector.values import invisible_characters, normalised, number, visible_text

CAT = "a cat on snow"
SPELLINGS = (
    "A  Cat on SNOW.",
    "a cat, on snow",
    "a\u00a0cat on snow",
    "a ca\u200bt on snow",
    "\ufeffa cat on sno\u00adw",
    "ａ ｃａｔ on snow",
)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spelling_makes_no_other_prompt(spelling: str) -> None:
    assert normalised(spelling) == CAT


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert normalised("a cafe\u0301") == normalised("a caf\u00e9") == "a café"


@pytest.mark.parametrize("other", ["a cat in snow", "two cats on snow", "!", "?"])
def test_other_words_make_another_prompt(other: str) -> None:
    assert normalised(other) != CAT


def test_an_invisible_character_between_a_letter_and_its_accent_makes_no_other_prompt() -> None:
    assert normalised("a cafe\u00ad\u0301") == normalised("a caf\u00e9")


def test_texts_that_look_the_same_become_equal() -> None:
    for text in ("a cafe\u0301 on snow", "a ca\u200bf\u00e9 on snow", "\ufeffa cafe\u00ad\u0301 on snow"):
        assert visible_text(text) == "a caf\u00e9 on snow"
    assert visible_text("\U0001f469\u200d\U0001f373 ａ　b") == "\U0001f469\u200d\U0001f373 ａ　b"


def test_a_prompt_of_punctuation_stays_itself() -> None:
    assert normalised("!?") == "!?"


def test_invisible_characters_are_named_and_joiners_are_not() -> None:
    assert invisible_characters("a\u200b cat\ufeff") == (
        "U+200B ZERO WIDTH SPACE",
        "U+FEFF ZERO WIDTH NO-BREAK SPACE",
    )
    assert invisible_characters("a \U0001f469\u200d\U0001f373 cooking") == ()


@pytest.mark.parametrize(("given", "read"), [(8.0, 8), (8, 8), (-1.0, -1), (0.5, 0.5), (1e300, 1e300)])
def test_a_whole_valued_float_is_a_whole_number(given: float, read: float) -> None:
    found = number(given)
    assert found == read and isinstance(found, int) == float(given).is_integer()
