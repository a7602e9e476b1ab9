"""What a prompt says, as the lexicon reads it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrector.prompts.variations.lexicon import lexicon, plural
from corrector.prompts.variations.prompt_parsing import Mention, read


def mention(prompt: str, group: str) -> Mention:
    """The only mention of a group."""
    (found,) = (mention for mention in read(prompt).mentions if mention.group == group)
    return found


def test_a_sentence_is_read_as_who_does_what_where() -> None:
    reading = read("A lady stretched out on the lawn")
    assert [(found.kind, found.group) for found in reading.mentions] == [
        ("entity", "woman"),
        ("action", "lie"),
        ("entity", "grass"),
    ]
    lawn = reading.mentions[-1]
    assert (lawn.relation, reading.text[lawn.phrase_start : lawn.end]) == ("at", "on the lawn")


@pytest.mark.parametrize(
    ("prompt", "noun", "relation"),
    [
        ("a cat under the old wooden table", "table", "under"),
        ("a cat in front of a house", "house", "before"),
        ("a hand holding a cup of coffee", "coffee", "of"),
        ("a hand next to a coffee cup", "coffee", "of"),
        ("a hand next to a coffee cup", "cup", "near"),
        ("a photo of a dog", "dog", ""),
        ("a cat on a bench and a dog", "dog", ""),
    ],
)
def test_a_preposition_relates_the_noun_behind_it(prompt: str, noun: str, relation: str) -> None:
    assert mention(prompt, noun).relation == relation


@pytest.mark.parametrize(
    ("prompt", "action", "wished"),
    [
        ("a man climbing a tree", "climb", False),
        ("a photo of climbing a tree", "climb", False),
        ("a man too scared to climb a tree", "climb", True),
        ("a man dreaming of climbing a tree", "climb", True),
        ("a man resting after climbing a tree", "climb", True),
    ],
)
def test_an_action_that_is_only_spoken_of_is_told_from_one_that_happens(
    prompt: str, action: str, wished: bool
) -> None:
    assert mention(prompt, action).wished is wished


def test_a_bare_stem_is_an_action_behind_several_and_a_noun_elsewhere() -> None:
    assert mention("two hands play the piano", "play").kind == "action"
    assert [found.group for found in read("a school play").of("action")] == []


def test_quoted_text_is_kept_apart() -> None:
    reading = read("a sign that says “Lying  DOWN”")
    assert reading.quoted == ("lying down",)
    assert [found.group for found in reading.mentions] == ["sign", "say"]


def test_a_prompt_in_quotation_marks_quotes_nothing() -> None:
    reading = read('"a dog on a bench"')
    assert reading.quoted == ()
    assert [found.group for found in reading.mentions] == ["dog", "bench"]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_text_can_be_read(prompt: str) -> None:
    reading = read(prompt)
    for found in reading.mentions:
        assert 0 <= found.phrase_start <= found.start < found.end <= len(reading.text)


def test_kinds_are_included_in_what_they_are_kinds_of() -> None:
    known = lexicon()
    assert known.includes("person", "girl")
    assert not known.includes("girl", "person")
    assert not known.contrast("person", "man")
    assert not known.contrast("doctor", "woman")
    assert known.contrast("man", "woman")
    assert known.contrast("lie", "stand")


PLURALS = {
    "cat": "cats",
    "puppy": "puppies",
    "bus": "buses",
    "wine glass": "wine glasses",
    "sheep": "sheep",
    "man": "men",
    "gentleman": "gentlemen",
    "snowman": "snowmen",
    "human": "humans",
    "child": "children",
    "foot": "feet",
    "mouse": "mice",
    "knife": "knives",
    "calf": "calves",
    "person": "people",
}


def test_plurals() -> None:
    assert {noun: plural(noun) for noun in PLURALS} == PLURALS


def test_every_group_that_is_named_exists() -> None:
    known = lexicon()
    groups = {group for groups in (*known.actions.values(), *known.nouns.values()) for group in groups} | {
        *known.places
    }
    named = {
        *known.parents.values(),
        *known.akin.values(),
        *known.surroundings,
        *(g for pair in known.related for g in pair),
    }
    assert named <= groups
