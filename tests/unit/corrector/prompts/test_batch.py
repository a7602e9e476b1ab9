"""What a batch and its entries promise to the rest of the system."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from corrector.prompts import (
    CorrectionBatch,
    EvaluationSettings,
    FailingPrompt,
    GateThresholds,
    HyperParameters,
    load_batch,
)
from corrector.prompts.failing_prompt import NAME_PATTERN, slug
from corrector.settings import Settings
from tests.support.batch_files import ENTRY, write
from tests.support.paths import EXAMPLES, PROJECT

PROMPT = FailingPrompt(
    prompt="a person lying on the grass",
    exemplars="exemplars/lying",
    guard_prompts=("a person", "a dog"),
    hyperparameters=HyperParameters(rank=8),
)


def work_id(
    prompt: FailingPrompt = PROMPT,
    *,
    base: str = "revision",
    digests: tuple[str, ...] = ("11", "22"),
    evaluation: EvaluationSettings | None = None,
    gate: GateThresholds | None = None,
) -> str:
    """The identity of a piece of work that is ordinary but for what is given."""
    return prompt.work_id(base, digests, evaluation or EvaluationSettings(), gate or GateThresholds())


def changed(**changes: object) -> FailingPrompt:
    """The ordinary prompt with other values."""
    return FailingPrompt.model_validate({**dict(PROMPT), **changes})


def test_the_same_work_has_the_same_identity_in_another_process() -> None:
    program = "from tests.unit.corrector.prompts.test_batch import work_id; print(work_id())"

    printed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert printed.strip() == work_id()


@pytest.mark.parametrize(
    ("file", "ids"),
    [
        (
            "people.yaml",
            [
                "ab1d6be87ebc74f437cd0ef9a860db602fd211937183ada64956f8a179f1bd52",
                "4886af79f5fcb8e2d19f0068d73875e3a05e7ea6e56cdc80e1bfb23dec8e0e6e",
                "d67563b9e6e1cb3c216c6cd973c1e5bef1ccc56998307181c664ebbc89f7b4ee",
                "6aedd572855493d31137690f78a64dbe67c001fdc4a44e0a4143dd2d2c6c09ac",
            ],
        ),
        (
            "search.yaml",
            [
                "58806e6d9ea76fe727c196ade92c91ca5402e1b97135f4956804e5e4ff429aa7",
                "76cb195a2afb5d194bdf7609d7f2d62ce3706cf6bc33b869ce941765f7d5bf91",
                "f94982c803c882c4df3f7ad4995a5348070599846218260038cef44078124062",
                "40d8c7cb1c5f4334272ed565f9dfd060a1fe82d3ed6956e168eefbab55f03868",
            ],
        ),
    ],
)
def test_the_identities_of_finished_work_stay(file: str, ids: list[str], settings: Settings) -> None:
    """Printed by the commit that let promotions require a survey; a run's folder and the registry know its work by them."""
    batch = load_batch(EXAMPLES / file, settings=settings)
    assert [
        prompt.work_id("revision", ["11", "22"], batch.evaluation, batch.gate) for prompt in batch.prompts
    ] == ids


@pytest.mark.parametrize(
    "other",
    [
        work_id(base="another revision"),
        work_id(digests=("11", "33")),
        work_id(digests=("11", "22", "22")),
        work_id(evaluation=EvaluationSettings(images=64)),
        work_id(gate=GateThresholds(max_p=0.05)),
        work_id(changed(name="another-name")),
        work_id(changed(prompt="a person lying on the lawn", name=PROMPT.name)),
        work_id(changed(paraphrases=("a man lying on the grass",))),
        work_id(changed(guard_prompts=("a person", "a cat"))),
        work_id(changed(hard_negatives=("a person lying on the roof",))),
        work_id(changed(class_prompt="a person")),
        *(
            work_id(changed(hyperparameters=HyperParameters.model_validate({"rank": 8, key: value})))
            for key, value in {
                "steps": 501,
                "learning_rate": 2e-4,
                "seed": 1,
                "alpha": 8,
                "beta2": 0.99,
            }.items()
        ),
    ],
)
def test_whatever_determines_the_result_changes_the_identity(other: str) -> None:
    assert re.fullmatch("[0-9a-f]{64}", other)
    assert other != work_id()


@pytest.mark.parametrize(
    "same",
    [
        work_id(changed(owner="someone", priority=7)),
        work_id(changed(exemplars="moved/elsewhere")),
        work_id(digests=("22", "11")),
    ],
)
def test_owner_priority_and_where_the_exemplars_lie_do_not_change_the_identity(same: str) -> None:
    assert same == work_id()


@pytest.mark.parametrize("model", [HyperParameters, EvaluationSettings, GateThresholds])
def test_every_hyper_parameter_and_threshold_counts_in_the_identity(model: type[BaseModel]) -> None:
    found = set()
    for name, field in model.model_fields.items():
        for value in (1, 2, 17, 32, 0.5, 0.05, True, False, "none", "mode", "linear", "fixed", 100, 5000):
            try:
                settings = model.model_validate({name: value})
            except ValidationError:
                continue
            if getattr(settings, name) == field.default:
                continue
            if isinstance(settings, HyperParameters):
                found.add(work_id(changed(hyperparameters=settings)))
            elif isinstance(settings, EvaluationSettings):
                found.add(work_id(evaluation=settings))
            elif isinstance(settings, GateThresholds):
                found.add(work_id(gate=settings))
            break
        else:
            pytest.fail(f"no other value of {name} was tried")

    assert len(found) == len(model.model_fields)


@effort(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_any_prompt_has_a_usable_name(prompt: str) -> None:
    assert re.fullmatch(NAME_PATTERN, slug(prompt))


def test_names_come_from_prompts_and_stay_apart() -> None:
    assert slug("A person, lying on the grass!") == "a-person-lying-on-the-grass"
    assert slug("Ein Mädchen im Café") == "ein-madchen-im-cafe"
    assert slug("一个人躺在草地上").startswith("prompt-")
    assert slug("一个人躺在草地上") != slug("一只狗躺在草地上")
    long = "a person lying on the grass " * 5
    assert slug(long + "in summer") != slug(long + "in winter")
    assert PROMPT.name == "a-person-lying-on-the-grass"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "a", "exemplars": "x"}, "guard_prompts: missing"),
        ({"prompt": "a", "exemplars": "x", "guard_prompts": ("A",)}, "also the prompt itself"),
        ({"prompt": "a\nb", "exemplars": "x", "guard_prompts": ("c",)}, "line break"),
        ({"prompt": "a", "exemplars": "x", "guard_prompts": ("c",), "name": "../up"}, "name"),
        ({"prompt": "a", "exemplars": "x", "guard_prompts": ("c",), "rank": 8}, "rank"),
    ],
)
def test_entries_made_in_code_are_checked_as_those_in_files_are(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        FailingPrompt.model_validate(values)


def test_contradictory_hyper_parameters_cannot_be_made() -> None:
    with pytest.raises(ValidationError, match="a warm-up of 500 steps leaves nothing"):
        HyperParameters(warmup_steps=500)


def test_a_batch_made_in_code_corrects_a_text_once() -> None:
    with pytest.raises(ValidationError, match=r"is also the prompt in prompts\[0\]"):
        CorrectionBatch(prompts=(PROMPT, changed(name="other")), path=Path("batch.yaml"))


def test_a_later_check_can_blame_the_line_of_the_file(folder: Path, settings: Settings) -> None:
    text = "defaults:\n  steps: 9\nprompts:\n" + ENTRY + "    rank: 512\n"
    path = write(folder, "batch.yaml", text)
    batch = load_batch(path, settings=settings)
    prompt = batch.prompts[0]

    assert str(batch.mistake(prompt, "rank", "too high")) == f"{path}:7: rank: too high"
    assert batch.mistake(prompt, "steps", "too few").line == 2
    assert batch.mistake(prompt, "learning_rate", "too low").line == 4

    made_in_code = CorrectionBatch(prompts=(PROMPT,), path=path)
    assert str(made_in_code.mistake(PROMPT, "rank", "too high")) == f"{path}: rank: too high"


@pytest.mark.parametrize(
    ("evaluation", "gate", "note"),
    [
        ({"images": 8}, {}, "evaluation.images is 8, gate.min_images 16"),
        ({"permutations": 100}, {}, "100 permutations cannot show a p below"),  # a look has 7 / 16 at most
        ({"permutations": 100, "stop_early": False}, {}, None),
        ({"permutations": 230}, {}, None),
        ({}, {}, None),
        ({}, {"max_p": 0.5}, None),
        ({}, {"min_grade": "fixed"}, "gate.min_grade is fixed, and evaluation.judge names no judge"),
        ({"judge": "someone"}, {"min_grade": "fixed"}, None),
    ],
)
def test_settings_under_which_nothing_can_pass_are_noted(
    evaluation: dict[str, object], gate: dict[str, object], note: str | None
) -> None:
    batch = CorrectionBatch(
        prompts=(PROMPT,),
        path=Path("batch.yaml"),
        evaluation=EvaluationSettings.model_validate(evaluation),
        gate=GateThresholds.model_validate(gate),
    )

    assert [text.startswith(note or "") for text in batch.notes] == ([True] if note else [])


def test_prompts_without_guards_are_noted_where_the_gate_wants_them() -> None:
    unguarded = PROMPT.model_copy(
        update={"guard_prompts": (), "hyperparameters": HyperParameters(preservation="none")}
    )
    guarded = changed(prompt="a cat", name="a-cat")
    batch = CorrectionBatch(prompts=(unguarded, guarded), path=Path("batch.yaml"))

    assert batch.notes == (
        "a-person-lying-on-the-grass: no guard prompts, and gate.require_guards: never a candidate",
    )
    relaxed = batch.model_copy(update={"gate": GateThresholds(require_guards=False)})
    assert relaxed.notes == ()
