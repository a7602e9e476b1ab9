"""Measures the error rates of a survey's analysis on simulated surveys whose truth is known, beside naive counting of votes.

    python -m tests.evaluation.measure_survey [--surveys 1000] [--pairs 40] [--only TEXT] [--out FILE.json] [--plot FILE.png]

Each survey draws its pairs (which arm's image is better, and how plainly) and raters of known kinds, who vote within a week.
"Naive" takes all votes of all raters as independent: a binomial test of those for "b" against those for "a", at the end or at
the end of each day. Shares have Wilson's 95 % interval in the file. Takes two and a half minutes of CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from corrector.evaluation.verdicts import right_share
from corrector.preference.analysis import win_rate
from corrector.preference.ballot_table import BallotTable
from corrector.preference.power import pairs_needed
from corrector.preference.sign_flips import sign_flip_p
from corrector.preference.stopping import stopping
from corrector.preference.survey import Arm, Ballot, Choice, StoppingRule, Survey, SurveyPair

LEVEL = 0.05
LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2)
DAY, DAYS = 86_400, 7
CHECKS, REPEATS = 6, 4
CHOICES: tuple[Choice, ...] = ("a", "both bad", "b")
STAKES = (0.1, 0.25, 0.5, 0.75)
CREATED = datetime(2025, 1, 1, tzinfo=UTC)

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One row of the table: what is true."""

    name: str
    raters: tuple[tuple[str, int], ...]
    preference: float = 0.0
    """Mean log-odds that a careful rater prefers the image of arm "b"."""
    taste: float = 0.0
    """Deviation of these log-odds between raters."""


CAREFUL = (("careful", 8),)
CREW = (("careful", 5), ("one-sided", 1), ("random", 1), ("fast", 1))
ROWS = (
    Row("no preference, 8 careful raters", CAREFUL),
    Row("no preference, 5 careful raters of 8", CREW),
    Row("no preference, 5 careful raters and one under ten names", (("careful", 5), ("ten names", 1))),
    Row(
        "no preference, 7 careful raters, one votes on one pair ten times", (("careful", 7), ("ten votes", 1))
    ),
    Row("no preference of the many, but of each rater", CAREFUL, taste=1.0),
    *(Row(f"preference {odds:g}, 5 careful raters of 8", CREW, odds) for odds in (0.5, 1.0, 2.0)),
)
PLOTTED, POWERED = ROWS[0], ROWS[5]
COLUMNS = (
    "what is true",
    "votes",
    "votes, daily",
    "sign flips",
    "stopping rule",
    "e-process",
    "votes at its end",
    "win rate",
    "interval over pairs, Wilson",
    "bootstrap",
    "over votes",
)


@dataclass
class Simulated:
    """A survey, its ballots, and the kind of each rater."""

    survey: Survey
    ballots: list[Ballot]
    kinds: dict[str, str] = field(default_factory=dict)


def simulate(row: Row, number: int, pairs: int) -> Simulated:
    """Survey `number` of a row; the same number is the same survey."""
    rng = np.random.default_rng([number, ROWS.index(row)])
    names = [f"{place:016x}" for place in range(3 * (pairs + CHECKS))]
    expected: list[Arm | None] = [None] * pairs + [("a", "b")[place % 2] for place in range(CHECKS)]
    survey = Survey(
        id="simulated",
        title="Simulated",
        arms={"a": "base", "b": "corrected"},
        pairs=tuple(
            SurveyPair(id=pair, prompt="", a=a, b=b, expected=right)
            for pair, a, b, right in zip(names[::3], names[1::3], names[2::3], expected, strict=True)
        ),
        questions=("overall",),
        seed=number,
        stopping=StoppingRule(level=LEVEL),
        created=CREATED,
    )
    better = row.preference + 1.5 * rng.standard_normal(pairs)
    bad = rng.beta(1, 4, pairs)
    found = Simulated(survey, [])
    for kind, count in row.raters:
        for person in range(count):
            own = np.where(
                rng.random(pairs) < bad,
                0,
                np.sign(better + row.taste * rng.standard_normal() + rng.logistic(size=pairs)),
            )
            opinion = np.concatenate([own, np.where(np.arange(CHECKS) % 2, 1, -1)])
            for name in range(10 if kind == "ten names" else 1):
                rater = f"{kind} {person}.{name}"
                found.kinds[rater] = kind
                found.ballots += _votes(survey, rater, kind, opinion, rng)
    return found


def _votes(survey: Survey, rater: str, kind: str, opinion: Numbers, rng: np.random.Generator) -> list[Ballot]:
    """All ballots of one rater, who holds `opinion` `[pairs]` (1 for "b") and answers as raters of that kind do."""
    pairs = len(opinion) - CHECKS
    again = np.zeros(9, dtype=int) if kind == "ten votes" else rng.choice(pairs, REPEATS, replace=False)
    places = np.concatenate([rng.permutation(pairs + CHECKS), again])
    repeat = (np.arange(len(places)) >= pairs + CHECKS) & (kind != "ten votes")
    left = rng.choice((-1, 1), len(places))
    slips = rng.random(len(places)) < 0.05
    answers = np.where(slips, rng.integers(-1, 2, len(places)), opinion[places])
    if kind in ("random", "fast"):
        answers = rng.integers(-1, 2, len(places))
    if kind == "one-sided":
        answers = np.where(rng.random(len(places)) < 0.7, left, answers)
    seconds = rng.lognormal(np.log(0.4 if kind == "fast" else 6), 0.4, len(places))
    given = rng.uniform(0, DAYS - 1) * DAY + np.cumsum(seconds)
    return [
        Ballot(
            rater=rater,
            pair=survey.pairs[place].id,
            left="b" if side > 0 else "a",
            answers={"overall": CHOICES[answer + 1]},
            seconds=spent,
            given=then,
            repeat=twice,
        )
        for place, side, answer, spent, then, twice in zip(
            places.tolist(), left.tolist(), answers.astype(int).tolist(), seconds.tolist(), given.tolist(),
            repeat.tolist(), strict=True,
        )
    ]  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What naive counting and the analysis made of one survey."""

    naive_p: float
    naive_daily_p: float
    p: float
    preference: bool
    e_process: bool
    ended: float
    """Share of the votes given when the survey could end."""
    scores: Numbers
    votes: tuple[int, int]
    """For "b", and for either arm."""
    excluded: tuple[str, ...]
    """Kinds of the excluded raters."""


def measure(simulated: Simulated) -> Measured:
    survey = simulated.survey
    table = BallotTable(survey, simulated.ballots)
    scores, votes = table.pair_scores("overall")
    scores = scores[votes > 0]
    rule = stopping(table)
    ps, won = _naive(simulated)
    return Measured(
        naive_p=ps[-1],
        naive_daily_p=min(ps),
        p=sign_flip_p(scores, survey.seed),
        preference=rule.decision == "preference",
        e_process=_e_process(table) >= 1 / survey.stopping.level,
        ended=rule.looks[-1].ballots / len(table) if rule.may_end else 1.0,
        scores=scores,
        votes=won,
        excluded=tuple(simulated.kinds[each.rater] for each in table.screened_raters() if each.excluded),
    )


def _naive(simulated: Simulated) -> tuple[list[float], tuple[int, int]]:
    """Two-sided binomial p of the votes at the end of each day, and all votes for "b" and for either arm."""
    expected = {pair.id for pair in simulated.survey.pairs if pair.expected}
    counted = [each for each in simulated.ballots if each.pair not in expected]
    ends = np.array([each.given for each in counted])[:, None] < DAY * np.arange(1, DAYS + 1)
    for_b, for_a = (
        (np.array([each.answers["overall"] == arm for each in counted])[:, None] & ends).sum(0)
        for arm in ("b", "a")
    )
    ps = np.minimum(1, 2 * bdtr(np.minimum(for_a, for_b), for_a + for_b, 0.5))
    return ps.tolist(), (int(for_b[-1]), int(for_a[-1] + for_b[-1]))


def _e_process(table: BallotTable) -> float:
    """The largest value of the alternative to the stopping rule: a mixture of bets on the pairs as they become complete.

    Pairs keep the score that they have with the votes of all raters who are kept at the end, which favours it.
    """
    scores, votes = table.pair_scores("overall")
    needed = table.survey.stopping.min_votes_per_pair
    order = [
        (np.flatnonzero((table.pair == place) & table.counts)[needed - 1], place)
        for place in np.flatnonzero(votes >= needed)
    ]
    bets = np.array([stake * side for stake in STAKES for side in (1, -1)])
    paths = np.cumprod(1 + bets[:, None] * scores[[place for _, place in sorted(order)]], axis=1)
    return float(paths.mean(0).max())


def coverage(measured: Sequence[Measured]) -> dict[str, float]:
    """How often 95 % intervals of the win rate hold the value that all surveys of the row have together."""
    wins = np.array([(each.scores > 0).sum() for each in measured])
    decided = np.array([(each.scores != 0).sum() for each in measured])
    votes = np.array([each.votes for each in measured])
    truth, votes_truth = wins.sum() / decided.sum(), votes[:, 0].sum() / votes[:, 1].sum()
    rng = np.random.default_rng(0)
    held = Counter[str]()
    for each, won, n in zip(measured, wins, decided, strict=True):
        interval = win_rate(each.scores.tolist())
        held["pairs, Wilson"] += interval is not None and interval.low <= truth <= interval.high
        low, high = np.quantile(rng.binomial(n, won / n, 2_000) / n, (0.025, 0.975))
        held["pairs, bootstrap"] += low <= truth <= high
        naive = right_share([place < each.votes[0] for place in range(each.votes[1])])
        held["votes, Wilson"] += naive.low <= votes_truth <= naive.high
    return {"win rate": float(truth)} | {name: count / len(measured) for name, count in held.items()}


def measure_row(row: Row, surveys: int, pairs: int) -> dict[str, Any]:
    """A row of the table, printed."""
    simulated = [simulate(row, number, pairs) for number in range(surveys)]
    measured = [measure(each) for each in simulated]
    shares = {
        "naive": right_share([each.naive_p <= LEVEL for each in measured]),
        "naive, daily": right_share([each.naive_daily_p <= LEVEL for each in measured]),
        "sign flips": right_share([each.p <= LEVEL for each in measured]),
        "stopping rule": right_share([each.preference for each in measured]),
        "e-process": right_share([each.e_process for each in measured]),
    }
    held = coverage(measured)
    ended = float(np.mean([each.ended for each in measured]))
    raters = Counter(kind for each in simulated for kind in each.kinds.values())
    excluded = Counter(kind for each in measured for kind in each.excluded)
    cells = [row.name, *(f"{share.value:.1%}" for share in shares.values()), f"{ended:.0%}"]
    cells += [f"{value:.0%}" if name == "win rate" else f"{value:.1%}" for name, value in held.items()]
    print(f"| {' | '.join(cells)} |", flush=True)
    scores = np.concatenate([each.scores for each in measured])
    return {
        "row": row.name,
        "found": {name: share.model_dump() for name, share in shares.items()},
        "ended": ended,
        "coverage": held,
        "raters": dict(raters),
        "excluded": dict(excluded),
        "effect": float(scores.mean()),
        "mean_square": float((scores**2).mean()),
        "ps": [(each.naive_p, each.naive_daily_p, each.p) for each in measured],
    }


def observed_rates(
    ps: Sequence[tuple[float, float, float]], surveys: int, pairs: int
) -> dict[str, list[float]]:
    """The share of surveys of `PLOTTED` in which each way of counting finds a preference, at each of `LEVELS`.

    Args:
        ps: Of each survey the naive p at the end, the smallest at the end of a day, and that of the sign flips.
    """
    at_end, daily, flips = np.array(ps).T
    preferences = np.zeros(len(LEVELS))
    for number in range(surveys):
        simulated = simulate(PLOTTED, number, pairs)
        for place, level in enumerate(LEVELS):
            survey = simulated.survey.model_copy(update={"stopping": StoppingRule(level=level)})
            preferences[place] += stopping(BallotTable(survey, simulated.ballots)).decision == "preference"
    found = {"votes counted as independent, looked at daily": daily, "votes counted as independent": at_end}
    rates = {name: [float((p <= level).mean()) for level in LEVELS] for name, p in found.items()}
    return rates | {
        "sign flips over pairs": [float((flips <= level).mean()) for level in LEVELS],
        "stopping rule, however often looked at": (preferences / surveys).tolist(),
    }


def plot(rates: dict[str, list[float]], path: Path) -> None:
    """Stated against observed error rates."""
    import matplotlib as mpl
    from PIL import Image

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    axes.plot([0, max(LEVELS)], [0, max(LEVELS)], color="0.6", linestyle="--", label="stated = observed")
    styles = (("#b3261e", "o"), ("#e07b00", "s"), ("#1f6f43", "^"), ("#1d4ed8", "v"))
    for (name, values), (colour, marker) in zip(rates.items(), styles, strict=True):
        axes.plot(LEVELS, values, color=colour, marker=marker, label=name)
    axes.set(
        xlabel="stated error rate",
        ylabel="surveys that find a preference",
        title="Surveys of two equal models",
        xlim=(0, 0.21),
        ylim=(0, None),
        xticks=LEVELS,
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    axes.grid(color="0.9")
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    with Image.open(path) as image:
        image.convert("RGB").quantize(64).save(path, optimize=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--surveys", type=int, default=1000, help="surveys of a row")
    parser.add_argument("--pairs", type=int, default=40, help="pairs of a survey")
    parser.add_argument("--only", default="", help="rows whose names hold this text")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(arguments)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    rows = [measure_row(row, given.surveys, given.pairs) for row in ROWS if given.only in row.name]
    raters, excluded = (
        sum((Counter(row[name]) for row in rows), Counter()) for name in ("raters", "excluded")
    )
    print("\n| kind of rater | excluded |\n|---|---|")
    for kind, count in raters.items():
        print(f"| {kind} | {excluded[kind] / count:.1%} of {count} |")
    for row, found in zip((row for row in ROWS if given.only in row.name), rows, strict=True):
        if row is POWERED:
            needed = pairs_needed(found["effect"], found["mean_square"], level=LEVEL, power=0.8)
            assert needed is not None
            measured = [measure(simulate(row, number, needed)) for number in range(given.surveys)]
            share = right_share([each.p <= LEVEL for each in measured])
            print(f"\npairs for a power of 80 % at {row.name}: {needed}; found in {share.value:.1%}")
    rates = {}
    if given.plot:
        ps = next((found["ps"] for found in rows if found["row"] == PLOTTED.name), None)
        if ps is None:
            parser.error(f'--plot: needs the row "{PLOTTED.name}"')
        rates = observed_rates(ps, given.surveys, given.pairs)
        plot(rates, given.plot)
    if given.out:
        given.out.write_text(json.dumps({"rows": rows, "rates": rates}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
