"""The analysis takes the pair as its unit, counts a rater once a pair, and excludes by the survey's rules alone."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrector.errors import UserError
from corrector.preference.analysis import Analysis, QuestionAnalysis, analyse, win_rate
from corrector.preference.sign_flips import FLIPS, sign_flip_p
from corrector.preference.survey import Arm, Ballot, Choice, Survey
from tests.support.surveys import defined
from tests.unit.corrector.preference.ballots import ballot, coin_votes

OTHER: dict[Choice, Choice] = {"a": "b", "b": "a", "both bad": "both bad"}
OTHER_ARM: dict[Arm, Arm] = {"a": "b", "b": "a"}
SIDES: tuple[Arm, Arm] = ("a", "b")


def overall(analysis: Analysis) -> QuestionAnalysis:
    return next(each for each in analysis.questions if each.question == "overall")


def enumerated_p(scores: Sequence[float]) -> float:
    """The share of all sign flips whose sum is as far from 0 as the scores' own."""
    sums = [
        abs(sum(s * x for s, x in zip(signs, scores, strict=True)))
        for signs in product((1, -1), repeat=len(scores))
    ]
    return sum(each >= abs(sum(scores)) - 1e-9 for each in sums) / len(sums)


@given(st.lists(st.sampled_from([-1, -2 / 3, -0.5, -1 / 3, 0, 1 / 3, 0.5, 2 / 3, 1]), max_size=8))
def test_the_p_of_few_pairs_is_that_of_all_flips(scores: list[float]) -> None:
    assert sign_flip_p(np.array(scores), seed=0) == pytest.approx(enumerated_p(scores))


def test_the_p_of_many_pairs_is_that_of_flips_drawn_at_random() -> None:
    scores = np.random.default_rng(1).choice([-1, -0.5, 0.5, 1], 14, p=[0.1, 0.2, 0.3, 0.4])

    p = sign_flip_p(scores, seed=3)

    assert p == pytest.approx(enumerated_p(scores.tolist()), abs=0.02)
    assert p * FLIPS == pytest.approx(round(p * FLIPS))
    assert p == sign_flip_p(scores, seed=3)


def test_a_question_by_hand() -> None:
    survey = defined(pairs=4)
    votes: dict[int, tuple[Choice, Choice]] = {
        0: ("b", "b"),
        1: ("b", "both bad"),
        2: ("a", "b"),
        3: ("a", "a"),
    }
    given = [
        ballot(survey, rater, place, answers[number], left="b")
        for place, answers in votes.items()
        for number, rater in enumerate(("ann", "bob"))
    ]

    found = overall(analyse(survey, given))

    assert [pair.score for pair in found.pairs] == [1, 0.5, 0, -1]
    assert [pair.verdict for pair in found.pairs] == ["b", None, None, "a"]
    assert (found.mean_score, found.p) == (0.125, 1.0)
    assert found.win_rate is not None
    assert (found.win_rate.value, found.decided) == (2 / 3, 3)
    assert (found.both_bad, found.left_share) == (1 / 8, 4 / 7)


def test_wilsons_interval_is_over_pairs_not_votes() -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3: 81 of 263."""
    found = win_rate([0.2] * 81 + [-1.0] * 182 + [0.0] * 10)

    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert win_rate([0.0, 0.0]) is None


def test_a_rater_counts_once_a_pair_with_the_last_ballot_and_repeats_and_checks_count_nothing() -> None:
    survey = defined(pairs=2, checks=1)
    given = [
        *(ballot(survey, "ann", 0, "a") for _ in range(9)),
        ballot(survey, "ann", 0, "b"),
        ballot(survey, "ann", 1, "b"),
        ballot(survey, "ann", 1, "a", left="b", repeat=True),
        ballot(survey, "ann", 2, "a"),
    ]

    found = overall(analyse(survey, given))

    assert [(pair.a, pair.b) for pair in found.pairs] == [(0, 1), (0, 1)]


def careful(survey: Survey) -> list[Ballot]:
    """Twelve pairs, three of them twice, and three checks, all as they should be."""
    pairs = [ballot(survey, "ann", place, "b", left=SIDES[place % 2]) for place in range(12)]
    checks = [ballot(survey, "ann", place, "a", left=SIDES[place % 2]) for place in range(12, 15)]
    repeats = [
        ballot(survey, "ann", place, "b", left=SIDES[1 - place % 2], repeat=True) for place in range(3)
    ]
    return [*pairs, *checks, *repeats]


def edited(change: Callable[[Ballot, int], dict[str, object]]) -> Callable[[Survey], list[Ballot]]:
    def votes(survey: Survey) -> list[Ballot]:
        return [Ballot(**{**vars(each), **change(each, n)}) for n, each in enumerate(careful(survey))]

    return votes


@pytest.mark.parametrize(
    ("votes", "reasons"),
    [
        (careful, []),
        (edited(lambda each, n: {"answers": {"overall": "b"}} if n == 12 else {}), []),
        (
            edited(lambda each, n: {"answers": {"overall": "both bad"}} if n in (12, 13) else {}),
            ["2 of 3 attention checks failed (at most 34%)"],
        ),
        (edited(lambda each, n: {"seconds": 0.2}), ["median time of a view 0.2 s (at least 1.5 s)"]),
        (edited(lambda each, n: {"seconds": 0.2} if n % 2 else {}), []),
        (
            edited(lambda each, n: {"left": each.answers["overall"]}),
            ["18 of 18 choices on the left, p = 8e-06 (at least 0.001)"],
        ),
        (
            edited(lambda each, n: {"answers": {"overall": "a"}} if n in (15, 16) else {}),
            ["1 of 3 repeats answered alike (at least 50%)"],
        ),
        (edited(lambda each, n: {"answers": {"overall": "a"}} if n == 15 else {}), []),
    ],
    ids=["careful", "a slip", "checks", "fast", "half fast", "left", "repeats", "one repeat"],
)
def test_a_rater_is_excluded_by_the_rules_of_the_survey(
    votes: Callable[[Survey], list[Ballot]], reasons: list[str]
) -> None:
    survey = defined(pairs=12, checks=3)
    other = [ballot(survey, "bob", 0, "a")]

    analysis = analyse(survey, votes(survey) + other)

    assert list(analysis.raters[0].excluded) == reasons
    assert analysis.kept == (("bob",) if reasons else ("ann", "bob"))
    assert len(overall(analysis).pairs) == (1 if reasons else 12)


@settings(max_examples=20, deadline=None)  # the first example imports crowd-kit, which takes seconds
@given(st.integers(0, 2**32 - 1))
def test_if_the_arms_swap_names_the_same_raters_are_kept_and_the_result_is_mirrored(seed: int) -> None:
    survey = defined(pairs=8)
    votes = coin_votes(survey, ["ann", "bob", "eve"], seed, share_of_b=0.7)
    swapped = [
        Ballot(
            **vars(each)
            | {"left": OTHER_ARM[each.left]}
            | {"answers": {q: OTHER[v] for q, v in each.answers.items()}}
        )
        for each in votes
    ]

    here, there = analyse(survey, votes), analyse(survey, swapped)

    assert here.raters == there.raters
    assert overall(here).mean_score == -(overall(there).mean_score or 0)
    assert overall(here).p == overall(there).p
    assert here.stopping.decision == there.stopping.decision


def coincidence_alpha(table: Sequence[Sequence[Choice | None]]) -> float:
    """Nominal alpha from the matrix of coincidences, as Krippendorff 2011 computes it; rows are raters."""
    values = ("a", "both bad", "b")
    coincidences = np.zeros((3, 3))
    for unit in zip(*table, strict=True):
        given = [values.index(each) for each in unit if each is not None]
        for i, j in product(range(len(given)), repeat=2):
            if i != j:
                coincidences[given[i], given[j]] += 1 / (len(given) - 1)
    totals, n = coincidences.sum(0), coincidences.sum()
    expected = (n**2 - (totals**2).sum()) / (n - 1)
    return float(1 - (n - np.trace(coincidences)) / expected)


def letters(text: str) -> list[Choice | None]:
    names: dict[str, Choice | None] = {"a": "a", "b": "b", "x": "both bad", ".": None}
    return [names[letter] for letter in text]


@pytest.mark.parametrize(
    ("rows", "published"),
    [
        # Krippendorff 2011, Computing Krippendorff's alpha-reliability, example A: two observers, ten units, binary
        (["abaaaaaaba", "bbbaabaaaa"], 0.095),
        # three raters, missing answers
        ([".....xbabaaxx.x", "a.baxxbx.......", "..baxbb.baaxx.b"], None),
    ],
)
def test_alpha_is_krippendorffs(rows: list[str], published: float | None) -> None:
    table = [letters(row) for row in rows]
    survey = defined(pairs=len(rows[0]))
    given = [
        ballot(survey, f"rater {number}", place, answer, left=SIDES[place % 2])
        for number, row in enumerate(table)
        for place, answer in enumerate(row)
        if answer is not None
    ]

    alpha = overall(analyse(survey, given)).alpha

    assert alpha == pytest.approx(coincidence_alpha(table))
    if published is not None:
        assert alpha == pytest.approx(published, abs=5e-4)


def test_without_votes_nothing_is_known_and_the_analysis_is_stored_and_read_again() -> None:
    survey = defined(pairs=3)

    empty, some = analyse(survey, []), analyse(survey, coin_votes(survey, ["ann", "bob"], seed=1))

    found = overall(empty)
    assert (found.p, found.mean_score, found.win_rate, found.alpha, found.both_bad) == (
        1,
        None,
        None,
        None,
        None,
    )
    assert empty.stopping.decision == "more votes"
    for each in (empty, some):
        assert Analysis.model_validate_json(each.model_dump_json()) == each


def test_a_ballot_on_a_pair_of_another_survey_is_refused() -> None:
    with pytest.raises(UserError, match=r'survey defined: .*"0{15}3", which the survey does not have'):
        analyse(defined(pairs=3), [ballot(defined(pairs=4), "ann", 3, "a")])
