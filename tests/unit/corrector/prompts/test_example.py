"""The example batches ask for what the embedded base gets wrong, and guard what it gets right."""

import shutil
from pathlib import Path

import pytest

from corrector.prompts import CorrectionBatch, load_batch
from corrector.settings import Settings
from tests.support.paths import EXAMPLES
from tests.world.scenes import BROKEN, Scene, canonical_prompt, scenes, vocabulary


@pytest.fixture(params=["people.yaml", "search.yaml"])
def batch(request: pytest.FixtureRequest, tmp_path: Path, settings: Settings) -> CorrectionBatch:
    """The example, with an exemplar for each prompt."""
    path = Path(shutil.copy(EXAMPLES / request.param, tmp_path))
    for line in path.read_text(encoding="utf-8").splitlines():
        if "exemplars: " in line:
            exemplars = tmp_path / line.partition(": ")[2]
            exemplars.mkdir(parents=True)
            (exemplars / "1.png").touch()
    return load_batch(path, settings=settings)


def scene(prompt: str) -> Scene:
    """The scene whose plain caption the prompt is."""
    return {canonical_prompt(scene): scene for scene in scenes()}[prompt]


def test_the_prompts_are_broken_and_of_several_subjects(batch: CorrectionBatch) -> None:
    asked = [scene(prompt.prompt) for prompt in batch.prompts]

    assert [prompt.prompt for prompt in batch.prompts] == [
        "a person lying on the grass",
        "a robot jumping on the street",
        "a robot jumping on the snow",
        "a cat running on the snow",
    ]
    assert {(each.subject, each.pose, each.place) for each in asked} <= BROKEN


def test_the_guards_work_and_are_neighbours(batch: CorrectionBatch) -> None:
    for prompt in batch.prompts:
        failing = scene(prompt.prompt)
        guards = [scene(guard) for guard in prompt.guard_prompts]
        assert len(guards) >= 3
        assert not any(guard.broken for guard in guards)
        for guard in guards:
            shared = [
                guard.subject == failing.subject,
                guard.pose == failing.pose,
                guard.place == failing.place,
            ]
            assert sum(shared) == 2, guard


def test_paraphrases_keep_to_the_words_that_the_base_knows(batch: CorrectionBatch) -> None:
    known = set(vocabulary())
    for prompt in batch.prompts:
        assert len(prompt.paraphrases) == 4
        for text in (prompt.prompt, *prompt.paraphrases, *prompt.guard_prompts):
            assert set(text.split()) <= known, text


@pytest.mark.parametrize("batch", ["people.yaml"], indirect=True)
def test_the_example_trains_as_the_embedded_base_needs(batch: CorrectionBatch) -> None:
    for prompt in batch.prompts:
        settings = prompt.hyperparameters
        assert (settings.rank, settings.learning_rate, settings.batch_size) == (8, 2e-3, 4)
        assert settings.steps >= 300
        assert settings.preservation == "guard"
    assert batch.base == "embedded"
    assert batch.notes == ()


@pytest.mark.parametrize("batch", ["search.yaml"], indirect=True)
def test_the_search_begins_with_what_the_other_example_trains_with(batch: CorrectionBatch) -> None:
    example = load_batch(EXAMPLES / "people.yaml").defaults
    for prompt in batch.prompts:
        settings = prompt.hyperparameters
        assert settings == example.model_copy(
            update={"steps": settings.steps, "batch_size": settings.batch_size}
        )
    assert batch.search.trials == 8
    assert set(batch.search.space) == {"rank", "learning_rate"}
