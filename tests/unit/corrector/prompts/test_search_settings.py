"""The search section of a batch file: its default space, its configurations, and its mistakes with their lines."""

import math
import re
from pathlib import Path

import pytest

from corrector.prompts import FailingPrompt, HyperParameters, SearchSettings, load_batch
from corrector.prompts.search_settings import SEARCHED, Choices, Dimension, Range
from corrector.prompts.search_space import configured, contains, default_dimension, dimensions, draw, grid
from corrector.settings import Settings
from tests.support.batch_files import ENTRY, mistakes, only, write
from tests.support.paths import PROJECT


def entry(**hyper: object) -> FailingPrompt:
    trained = HyperParameters.model_validate({"rank": 8, "learning_rate": 2e-3, "steps": 300} | hyper)
    return FailingPrompt(
        prompt="a person lying on the grass",
        exemplars="exemplars",
        guard_prompts=("a dog",),
        hyperparameters=trained,
    )


def search(text: str) -> str:
    """A batch file whose line 2 begins the search."""
    return f"base: embedded\nsearch:\n{text}\nprompts:\n{ENTRY}"


def test_without_a_space_rank_and_learning_rate_are_varied_around_the_prompts_own(
    folder: Path, settings: Settings
) -> None:
    batch = load_batch(write(folder, "batch.yaml", "prompts:\n" + ENTRY), settings=settings)

    space = dimensions(batch.search.space, entry())

    assert space == {"rank": Choices(values=(4, 8, 16)), "learning_rate": Range(low=5e-4, high=8e-3)}


@pytest.mark.parametrize("key", SEARCHED)
def test_every_default_space_holds_only_what_a_batch_file_may_hold(key: str) -> None:
    for own in (
        entry(),
        entry(rank=1, learning_rate=0.9, batch_size=1, steps=1),
        entry(rank=1024, alpha=4e3),
    ):
        space = {key: default_dimension(key, own)}
        for configuration in draw(space, 20, seed=0):
            assert contains(space, configuration)
            HyperParameters.model_validate(configured(own, configuration).hyperparameters.model_dump())


def test_the_space_is_read_in_all_its_forms(folder: Path, settings: Settings) -> None:
    text = search(
        "  trials: 5\n  space:\n    rank: [2, 4]\n    learning_rate: {low: 1e-4, high: 1e-2}\n    steps: default"
    )
    found = load_batch(write(folder, "batch.yaml", text), settings=settings).search

    assert found.trials == 5
    assert found.space == {
        "rank": Choices(values=(2, 4)),
        "learning_rate": Range(low=1e-4, high=1e-2),
        "steps": None,
    }


@pytest.mark.parametrize("evenly", [False, True])
def test_drawn_configurations_differ_lie_inside_and_are_the_same_for_the_same_seed(evenly: bool) -> None:
    space = dimensions(SearchSettings().space, entry())
    found = draw(space, 30, seed=3, evenly=evenly)

    assert len(found) == 30
    assert all(contains(space, each) for each in found)
    assert all(each not in found[:index] for index, each in enumerate(found))
    assert draw(space, 30, seed=3, evenly=evenly) == found
    assert draw(space, 12, seed=3, evenly=evenly) == found[:12]
    assert draw(space, 30, seed=4, evenly=evenly) != found


@pytest.mark.parametrize("evenly", [False, True])
def test_a_small_space_is_drawn_whole_and_no_further(evenly: bool) -> None:
    space = {"rank": Choices(values=(2, 4)), "steps": Choices(values=(10, 20))}

    assert sorted(draw(space, 99, seed=0, evenly=evenly), key=str) == sorted(grid(space), key=str)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_drawn_evenly_has_one_value_in_every_part_of_a_range(seed: int) -> None:
    space: dict[str, Dimension] = {
        "rank": Choices(values=(2, 4)),
        "learning_rate": Range(low=1e-4, high=1e-2),
    }
    drawn = draw(space, 8, seed, evenly=True)

    shares = sorted(math.log(float(each["learning_rate"] or 0) / 1e-4, 100) for each in drawn)
    rounding = 1e-3
    for part, share in enumerate(shares):  # by chance once in 416 times
        assert part / 8 - rounding <= share <= (part + 1) / 8 + rounding
    assert [each["rank"] for each in drawn].count(2) == 4


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        ("  space: {}", 3, "search.space", "empty"),
        ("  space:\n    rank: []", 4, "search.space.rank", "empty"),
        ("  space:\n    rank: [4, 4]", 4, "search.space.rank[1]", "twice"),
        ("  space:\n    rank:\n      - 4\n      - 0", 6, "search.space.rank[1]", "from 1 to 1024"),
        ("  space:\n    rank: {low: 8, high: 4}", 4, "search.space.rank", "not below high"),
        ("  space:\n    rank: {low: 8}", 4, "search.space.rank.high", "missing"),
        ("  space:\n    rank: {low: 8, hi: 9, high: 16}", 4, "search.space.rank.hi", "unknown key"),
        ("  space:\n    alpha: {low: null, high: 8}", 4, "search.space.alpha.low", "missing"),
        ("  space:\n    rank: 8", 4, "search.space.rank", "expected a list"),
        ("  space:\n    lr_schedule: {low: 1, high: 2}", 4, "search.space.lr_schedule", "expected a list"),
        ("  space:\n    lr: default", 4, "search.space.lr", 'did you mean "learning_rate"?'),
        ("  space:\n    preservation: [prior]", 4, "search.space.preservation", "class_prompt: missing"),
        ("  sampler: grid", 2, "search.space.learning_rate", "a grid needs lists"),
        (
            "  sampler: grid\n  trials: 3\n  space:\n    rank: [1, 2, 3, 4]",
            4,
            "search.trials",
            "4 configurations",
        ),
        ("  max_steps: 499", 3, "search.max_steps", "less than the 500 of one trial"),
        ("  first_images: 33", 3, "search.first_images", "more than a whole evaluation"),
        ("  targets: [score, damage]", 3, "search.targets", "set sampler: tpe"),
        ("  targets: []", 3, "search.targets", "nothing to aim at"),
        ("  targets: score", 3, "search.targets", 'each one of "score", "distance"'),
        ("  targets: [fid]", 3, "search.targets[0]", 'one of "score", "distance"'),
        ("  scope: batch\n  objective: kid", 3, "search.scope", "as a whole by fid"),
        ("  extractor: inception", 3, "search.extractor", '"efficientnet_lite0", "opennsfw"'),
        ("  trial: 3", 3, "search.trial", 'did you mean "trials"?'),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_remedy(
    folder: Path, settings: Settings, text: str, line: int, field: str, message: str
) -> None:
    error = only(mistakes(folder, "batch.yaml", search(text), settings))

    assert (error.line, error.field) == (line, field)
    assert message in error.message


def test_the_example_of_the_guide_is_right(folder: Path, settings: Settings) -> None:
    guides = [PROJECT / name for name in ("README.md", "jobs/README.md") if (PROJECT / name).exists()]
    blocks = [
        block
        for guide in guides
        for block in re.findall(r"^```yaml\n(search:\n.*?)^```$", guide.read_text(), re.DOTALL | re.MULTILINE)
    ]
    assert blocks
    for block in blocks:
        found = load_batch(write(folder, "batch.yaml", f"{block}prompts:\n{ENTRY}"), settings=settings).search
        assert "preservation_weight" in found.space
        assert isinstance(found.space["learning_rate"], Range)


@pytest.mark.parametrize("written", ["", " default", " null", " ~"])
def test_a_key_without_a_value_is_searched_in_its_default_space(
    folder: Path, settings: Settings, written: str
) -> None:
    text = search(f"  space:\n    steps:{written}")
    assert load_batch(write(folder, "batch.yaml", text), settings=settings).search.space == {"steps": None}


def test_weights_for_a_preservation_that_is_off_are_a_contradiction(folder: Path, settings: Settings) -> None:
    text = search("  space:\n    preservation_weight: default") + "    preservation: none\n"

    assert "nothing to weigh" in only(mistakes(folder, "batch.yaml", text, settings)).message


def test_a_warm_up_longer_than_the_shortest_training_is_a_contradiction(
    folder: Path, settings: Settings
) -> None:
    text = search("  space:\n    steps: [50, 500]") + "    warmup_steps: 60\n"
    error = only(mistakes(folder, "batch.yaml", text, settings))

    assert (error.line, error.field) == (4, "search.space.steps")
    assert "leaves nothing of 50 steps" in error.message


def test_a_batch_that_is_searched_as_a_whole_begins_with_one_configuration(
    folder: Path, settings: Settings
) -> None:
    text = (
        search("  scope: batch\n  space:\n    rank: [2, 4]")
        + ENTRY.replace("person", "robot")
        + "    rank: 8\n"
    )
    error = only(mistakes(folder, "batch.yaml", text, settings))

    assert (error.line, error.field) == (3, "search.scope")
    assert "needs one rank to begin with" in error.message
