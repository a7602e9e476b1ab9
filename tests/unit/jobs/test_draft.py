"""`jobs.draft` asks a model for paraphrases and hard negatives, and writes a batch file for people to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corrector.prompts import load_batch
from jobs.draft import main
from tests.support.images_api import KEY
from tests.support.judge_api import JudgeApiServer, judge_api, says
from tests.support.paths import EXAMPLES

BATCH = EXAMPLES / "people.yaml"
Draft = Callable[..., int]


@pytest.fixture
def api() -> Iterator[JudgeApiServer]:
    with judge_api() as server:
        yield server


def answer(number: int) -> str:
    same = [
        f"someone resting in meadow {number}",
        "A Person lying on the grass!",
        f"lawn nap {number}",
        f"lawn nap {number}",
    ]
    different = [f"a person asleep on roof {number}", f"lawn nap {number}", " ", f"nobody in meadow {number}"]
    return json.dumps({"same": same, "different": different})


@pytest.fixture
def draft(api: JudgeApiServer) -> Draft:
    environment = {
        "CORRECTOR_JUDGE_URL": api.url,
        "CORRECTOR_JUDGE_MODEL": "writer",
        "CORRECTOR_JUDGE_KEY": KEY,
    }

    def run(batch: Path, out: Path, *options: str) -> int:
        return main([str(batch), "--out", str(out), *options], environment)

    return run


def test_every_prompt_gets_what_is_new_and_the_file_is_a_batch(
    api: JudgeApiServer, draft: Draft, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = load_batch(BATCH), tmp_path / "drafted.yaml"
    api.faults.extend(says(answer(number)) for number in range(4))

    assert draft(BATCH, out, "--count", "2") == 0

    after = load_batch(out)
    for number, (was, now) in enumerate(zip(before.prompts, after.prompts, strict=True)):
        assert now.paraphrases[: len(was.paraphrases)] == was.paraphrases
        assert f"lawn nap {number}" in now.paraphrases and f"lawn nap {number}" not in now.hard_negatives
        assert now.hard_negatives == (f"a person asleep on roof {number}", f"nobody in meadow {number}")
        assert (now.guard_prompts, now.hyperparameters) == (was.guard_prompts, was.hyperparameters)
        assert after.exemplar_folder(now).resolve() == before.exemplar_folder(was).resolve()
    asked = api.requests[0]["messages"]
    assert "2 prompts that users would type" in asked[0]["content"]
    assert "Prompt: a person lying on the grass\nSame: a photo of" in asked[1]["content"][0]["text"]
    assert "writer drafted" in out.read_text()
    assert "4 paraphrases, 2 hard negatives" not in capsys.readouterr().out.splitlines()[0]


def test_what_was_drafted_before_a_failure_is_kept_and_not_asked_again(
    api: JudgeApiServer, draft: Draft, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    api.faults.extend(
        [says(answer(0)), says("Gladly! Here are some."), says(answer(1)), says(answer(2)), says(answer(3))]
    )

    assert draft(BATCH, first, "--count", "2") == 1
    assert "robot-jumping-street: writer did not answer with two lists of prompts" in capsys.readouterr().err
    assert [len(prompt.hard_negatives) for prompt in load_batch(first).prompts] == [2, 0, 0, 0]

    assert draft(first, second, "--count", "2") == 0
    assert [len(prompt.hard_negatives) for prompt in load_batch(second).prompts] == [2, 2, 2, 2]
    assert len(api.requests) == 5


def test_mistakes_of_the_user_are_told(
    draft: Draft, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(BATCH), "--out", str(tmp_path / "out.yaml")], {}) == 2
    assert "CORRECTOR_JUDGE_URL: is not set" in capsys.readouterr().err
    assert draft(tmp_path / "none.yaml", tmp_path / "out.yaml") == 2
    assert not (tmp_path / "out.yaml").exists()
    (tmp_path / "read.yaml").write_text("what a person mended")
    assert draft(BATCH, tmp_path / "read.yaml") == 2
    assert (tmp_path / "read.yaml").read_text() == "what a person mended"


def test_an_address_keeps_its_signature_and_the_search_its_section(
    api: JudgeApiServer, draft: Draft, tmp_path: Path
) -> None:
    address, out = "https://example.org/good.zip?signature=7", tmp_path / "drafted.yaml"
    (tmp_path / "batch.json").write_text(
        json.dumps(
            {
                "prompts": [
                    {"prompt": "a person lying on the grass", "exemplars": address, "preservation": "none"}
                ],
                "search": {"trials": 7},
            }
        )
    )
    api.faults.append(says(answer(0)))

    assert draft(tmp_path / "batch.json", out) == 0
    assert load_batch(out).prompts[0].exemplars == address
    assert load_batch(out).search.trials == 7
