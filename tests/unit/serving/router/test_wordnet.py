"""Base forms and relations of words."""

import pytest

from serving.router.wordnet import Relation, wordnet


def relation(word: str, other: str) -> Relation:
    known = wordnet()
    return known.relation(known.lemmas(word), known.lemmas(other))


@pytest.mark.parametrize(
    ("word", "lemma"),
    [
        ("wolves", ("wolf", "n")),
        ("women", ("woman", "n")),
        ("mice", ("mouse", "n")),
        ("ladies", ("lady", "n")),
        ("tying", ("tie", "v")),
        ("running", ("run", "v")),
        ("swam", ("swim", "v")),
        ("clears", ("clear", "v")),
        ("bigger", ("big", "a")),
    ],
)
def test_base_forms(word: str, lemma: tuple[str, str]) -> None:
    assert lemma in wordnet().lemmas(word)


@pytest.mark.parametrize(
    ("word", "other", "attribute"),
    [
        ("tied", "tying", "same"),
        ("mending", "repairing", "synonym"),
        ("veranda", "porch", "narrower"),
        ("footwear", "boots", "broader"),
        ("kettle", "teapot", "sibling"),
        ("untying", "tying", "opposite"),
    ],
)
def test_relations(word: str, other: str, attribute: str) -> None:
    assert getattr(relation(word, other), attribute) > 0


def test_words_without_a_relation() -> None:
    assert relation("hedgehog", "violin") == Relation()
    assert relation("blorp", "violin") == Relation()
    assert not relation("truck", "tractor").broader, "a kind of truck is a tractor's second meaning"


def test_people_animals_and_parts_of_the_body() -> None:
    known = wordnet()
    assert known.is_living(known.lemmas("barbers")) and known.is_animal(known.lemmas("hedgehog"))
    assert known.is_body_part(known.lemmas("hands")) and not known.is_living(known.lemmas("hands"))
    assert not known.is_living(known.lemmas("needle")) and not known.is_living(known.lemmas("stars"))
    assert known.is_living(known.lemmas("climbers")) and known.is_living(known.lemmas("otter"))
