"""Paraphrases mean what the prompt means; hard negatives do not; both are English."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrector.evaluation.negatives import likely_negatives
from corrector.prompts import load_batch
from corrector.prompts.variations import hard_negatives, paraphrases
from corrector.prompts.variations.english import with_article
from corrector.prompts.variations.prompt_parsing import read
from corrector.settings import Settings
from tests.support.paths import EXAMPLES
from tests.world.scenes import canonical_prompt, scenes

LYING = "a person lying on the grass"


def test_paraphrases_use_synonyms_order_tense_articles_and_openings() -> None:
    found = set(paraphrases(LYING, limit=1500))
    assert {
        "a person reclining on the grass",
        "a woman lying on the grass",
        "a person lying in a meadow",
        "on the grass lies a person",
        "a person is lying on the grass",
        "person lying on grass",
        "the person lying on the grass",
        "a picture of a person lying on the grass",
    } <= found


def test_hard_negatives_differ_in_each_way_in_turn() -> None:
    found = hard_negatives(LYING, limit=90)
    assert {negative.difference for negative in found[:9]} == {
        "action",
        "place",
        "noun",
        "negation",
        "swapped",
        "extra",
        "number",
        "missing",
        "relation",
    }


def test_the_hard_negatives_of_the_paper_s_prompt() -> None:
    found = {negative.text for negative in hard_negatives(LYING, limit=1200)}
    assert {
        "a person standing on the grass",
        "a dog lying on the grass",
        "a person lying on the street",
        "a person not lying on the grass",
        "nobody is lying on the grass",
        "grass on the person",
        "two people lying on the grass",
    } <= found


def test_no_scene_of_the_embedded_world_is_a_paraphrase_of_another() -> None:
    prompts = [canonical_prompt(scene) for scene in scenes()]
    for prompt in prompts:
        found = {*paraphrases(prompt, limit=100)}
        assert found.isdisjoint(prompts)


def test_no_hard_negative_is_a_paraphrase() -> None:
    for prompt in (LYING, "a cat and a dog sitting on a bench", "a hand holding a cup of coffee"):
        same = {*paraphrases(prompt, limit=1000)}
        assert same.isdisjoint(negative.text for negative in hard_negatives(prompt, limit=250))


def test_the_order_of_what_is_side_by_side_means_nothing() -> None:
    prompt = "a cat and a dog sitting beside a robot"
    swapped = [n.text for n in hard_negatives(prompt, 400) if n.difference == "swapped"]
    assert swapped
    assert not any(text.startswith("a dog and a cat sitting") for text in swapped)


def test_the_same_arguments_give_the_same_texts() -> None:
    assert paraphrases(LYING, 50, seed=3) == paraphrases(LYING, 50, seed=3)
    assert hard_negatives(LYING, 50, seed=3) == hard_negatives(LYING, 50, seed=3)
    assert paraphrases(LYING, 50, seed=3) != paraphrases(LYING, 50, seed=4)


def test_unknown_words_stay() -> None:
    for text in paraphrases("a gargoyle brooding on a ledge", 50):
        assert {"gargoyle", "brooding", "ledge"} <= set(text.replace(",", "").split())
    differences = {negative.difference for negative in hard_negatives("a gargoyle brooding on a ledge", 50)}
    assert {"action", "noun", "negation", "swapped", "missing"} <= differences


GOLDEN = json.loads(Path(__file__).with_name("golden_variations.json").read_text(encoding="utf-8"))
"""What commit 19349a3 made of the examples' prompts, without what was wrong English."""


@pytest.mark.parametrize("prompt", GOLDEN)
def test_texts_that_were_right_stay(prompt: str) -> None:
    golden = GOLDEN[prompt]
    negatives = [negative.text for negative in hard_negatives(prompt, 150)]

    assert list(paraphrases(prompt, 25)) == golden["paraphrases"]
    assert [text for text in negatives if text in golden["hard negatives"]] == golden["hard negatives"]


def test_the_hard_negatives_of_a_run_stay(settings: Settings) -> None:
    for entry in load_batch(EXAMPLES / "people.yaml", settings=settings).prompts:
        drawn = [negative.text for negative in likely_negatives(entry, 4)]
        assert drawn == GOLDEN[entry.prompt]["drawn"]


WORDS = (
    "hour honest heir unicorn university European one-legged once umbrella usual owl horse ewe 8-year X-ray"
)


def test_a_and_an_go_by_sound() -> None:
    assert [with_article(word) for word in WORDS.split()] == (
        ["an", "an", "an", "a", "a", "a", "a", "a", "an", "a", "an", "a", "a", "an", "an"]
    )


SOUNDS = {"unicorn": "a", "university": "a", "european": "a", "one-legged": "a", "hour": "an", "honest": "an"}
FAULTY = (
    *(LYING, "an elephant standing on a rock", "a child eating an apple", "a unicorn standing on the grass"),
    *("an hour glass on a table", "a European castle on a hill", "a one-legged pirate standing on a ship"),
    *("an astronaut riding a horse on mars", "two men fighting in the street", "a man watching two dogs"),
    *("a pair of scissors on a table", "a group of people dancing on stage", "a street with a dog"),
    *("a young woman holding a glass of water", "a boy drinking water", "a woman wearing jeans"),
)


@pytest.mark.parametrize("prompt", FAULTY)
def test_variations_are_english(prompt: str) -> None:
    texts = [*paraphrases(prompt, 200), *(negative.text for negative in hard_negatives(prompt, 200))]
    for text in texts:
        words = re.findall(r"[\w'-]+|[,:]", text.lower())
        for word, following in pairwise(words):
            if word in ("a", "an"):
                vowel = "an" if following[0] in "aeiou" else "a"
                assert word == SOUNDS.get(following, vowel), text
            if word in ("a", "an", "two", "three", "four", "five", "six"):
                assert following not in ("a", "an", "the", "of", "grass", "snow"), text
            if word in ("two", "three", "four", "five", "six"):
                assert following not in ("man", "dog", "person", "lion", "cup", "is"), text
        assert not re.search(
            r"mans\b(?<!humans)|\b(scissor|trouser|legging|sunglass|childs|mouses)\b", text
        ), text


@pytest.mark.parametrize("place", ["on the grass", "in the snow", "on a bench"])
def test_a_place_never_takes_the_part_of_what_is_in_it(place: str) -> None:
    found = [n.text for n in hard_negatives(f"a unicorn standing {place}", 300) if n.difference == "swapped"]
    assert found
    assert not any(read(text).of("action") for text in found)

    swapped = [n.text for n in hard_negatives("a man watching two dogs", 60) if n.difference == "swapped"]
    assert "two dogs watching a man" in swapped


def test_a_noun_that_was_right_without_an_article_gives_way_to_one_with_an_article() -> None:
    found = {negative.text for negative in hard_negatives("an astronaut riding a horse on mars", 600)}
    assert "an astronaut riding a horse on scissors" in found
    assert any(re.fullmatch(r"an astronaut riding a horse on an? [\w-]+", text) for text in found)


def test_mass_nouns_take_no_article() -> None:
    found = {negative.text for negative in hard_negatives("a child eating an apple", 600)}
    mass = ("bread", "spaghetti", "pasta", "water", "milk", "tea", "wine")
    assert any(f"a child eating {noun}" in found for noun in mass)
    assert not any(f"a {noun}" in text.split(",")[0] for text in found for noun in mass if noun != "wine")


def test_a_limit_is_kept_and_texts_are_distinct() -> None:
    found = paraphrases(LYING, limit=25)
    assert len(found) == len(set(found)) == 25
    carrying = hard_negatives("a man carrying a dog", limit=25)
    assert len({negative.text for negative in carrying}) == 25


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_variations_or_none(prompt: str) -> None:
    assert len(paraphrases(prompt, 5)) <= 5
    assert len(hard_negatives(prompt, 5)) <= 5
