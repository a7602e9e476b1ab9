"""`python -m jobs.diagnose` before anything is drawn, its drawing without a cluster, and what it writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from corrector.base import ContentCache, resolve_base
from corrector.detectors.local import InstalledJudge
from corrector.diagnosis import PromptDiagnosis, SequentialTest
from corrector.drawing import BaseImages
from corrector.loaded_base import Base
from corrector.prompts import EvaluationSettings, load_batch
from corrector.storage import Storage
from jobs.diagnose import main
from jobs.diagnosis.drawing import Drawer, plan_drawing
from jobs.diagnosis.prompts import ListedPrompt, load_exemplars, read_prompts
from jobs.diagnosis.results import failing_batch, json_of, table_of
from tests.oracle.judge import SCENES, OracleJudge
from tests.support.batches import write_batch
from tests.support.commands import run
from tests.support.scenes import pictures
from tests.unit.jobs.test_collect import verdict, write

LYING, TREE = "a person lying on the grass", "a tree on the grass"
OTHER_ARTICLES = "the person lying on grass"
TEST = SequentialTest(fails_at=0.2, images=16, block=8)


@pytest.fixture(autouse=True)
def _no_judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CORRECTOR_JUDGE_URL", raising=False)


def diagnose(folder: Path, prompts: str | Path, *arguments: str | Path) -> Any:
    return run(main, prompts, "--out", folder / "out.yaml", "--storage", folder / "runs", *arguments)


def diagnosed(listed: ListedPrompt, *, broken: bool) -> PromptDiagnosis:
    judge = InstalledJudge(OracleJudge())
    diagnosis = PromptDiagnosis(listed.wordings, EvaluationSettings(), [judge], TEST)
    while block := diagnosis.next_block:
        images = [pictures(SCENES[text], [seed], broken=broken) for text, seed in block]
        diagnosis.add(torch.cat(images))
    return diagnosis


def test_every_kind_of_list_is_read(tmp_path: Path, small_sd3: Path) -> None:
    lines = f"{LYING}\r\n\r\n{TREE}\r\n{LYING.upper()}\r\n{OTHER_ARTICLES}\r\n"
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    (tmp_path / "b.csv").write_text(f'id;prompt\n1;{LYING}\n2;"{TREE}"\n3;{OTHER_ARTICLES}\n')
    feedback = write(
        tmp_path / "c.jsonl", verdict(LYING), verdict(OTHER_ARTICLES), verdict(TREE), verdict("ok", "good")
    )
    expected = [(LYING, OTHER_ARTICLES), (TREE,)]

    for path in (tmp_path / "a.txt", tmp_path / "b.csv", feedback):
        assert [each.wordings for each in read_prompts(str(path)).prompts] == expected, path
    assert [each.flags for each in read_prompts(str(feedback)).prompts] == [2, 1]
    assert read_prompts(str(tmp_path / "a.txt")).given == 4

    batch = read_prompts(str(write_batch(tmp_path, small_sd3)))
    assert [each.wordings for each in batch.prompts] == [(LYING,), ("a dog lying on the grass",)]
    exemplars = load_exemplars(batch, resolve_base(str(small_sd3)))
    assert {text: len(images) for text, images in exemplars.items()} == {
        each.wordings[0]: 16 for each in batch.prompts
    }


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("p.txt", "", "the file is empty"),
        ("p.txt", "\n \n", "the file is empty"),
        (
            "p.txt",
            f"{TREE}\n{'long ' * 2000}\n",
            "p.txt:2: prompt: expected at most 1000 characters, found 9999",
        ),
        ("p.txt", f"{TREE}\na\ttab\n", "p.txt:2: prompt: holds a line break or control character"),
        ("p.csv", f"text\n{TREE}\n", "p.csv:1: prompt: no column of this name; the columns are text"),
        ("p.csv", "prompt\n", "no prompts; write one a line"),
        ("p.csv", "prompt,exemplars\na,b\n", 'p.csv:2: exemplars: no folder or file "b"|exemplars'),
        ("p.jsonl", '{"verdict": "awful"}\n', "p.jsonl:1: "),
        ("p.md", TREE, "p.md: cannot tell the format; expected a list of prompts"),
        ("p.txt", TREE, "no detector can run"),
    ],
)
def test_input_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: str, why: str) -> None:
    (tmp_path / name).write_text(content)
    ended = diagnose(tmp_path, tmp_path / name)
    assert ended.returncode == 2
    assert re.search(why, ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "runs").exists() and not (tmp_path / "out.yaml").exists()


def test_a_missing_list_an_existing_batch_and_odd_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(TREE)
    assert "no such file" in diagnose(tmp_path, tmp_path / "none.txt").stderr
    assert "multiple of 8" in diagnose(tmp_path, tmp_path / "p.txt", "--images", "12").stderr
    assert "between 0 and 1" in diagnose(tmp_path, tmp_path / "p.txt", "--fails-at", "20").stderr
    assert "is unknown" in diagnose(tmp_path, tmp_path / "p.txt", "--detector", "eyes").stderr
    (tmp_path / "out.yaml").write_text("mine")
    assert "is there already" in diagnose(tmp_path, tmp_path / "p.txt").stderr
    assert (tmp_path / "out.yaml").read_text() == "mine"


def test_nothing_is_sent_before_a_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("URL", "http://127.0.0.1:9/v1"),
        ("MODEL", "eyes"),
        ("PRICE", "0.01"),
        ("BUDGET", "5"),
    ):
        monkeypatch.setenv(f"CORRECTOR_JUDGE_{name}", value)
    (tmp_path / "p.txt").write_text(f"{TREE}\n{LYING}\n")

    ended = diagnose(tmp_path, tmp_path / "p.txt")

    assert ended.returncode == 1
    said = " ".join(ended.stdout.split())
    assert "at most 64 images go to eyes at http://127.0.0.1:9/v1, for $0.01 each, at most $0.64" in said
    assert "nothing was sent; add --yes to judge" in said
    assert not (tmp_path / "runs").exists()


def test_a_drawer_keeps_the_images_where_a_correction_looks_for_them(tmp_path: Path, small_sd3: Path) -> None:
    spec, storage = resolve_base(str(small_sd3)), Storage.of(tmp_path)
    evaluation = EvaluationSettings(num_inference_steps=2)
    blocks = [tuple((text, seed) for seed in (1000, 1001)) for text in (LYING, TREE)]
    drawer = Drawer(spec, storage, evaluation, "cpu", 1)

    drawn = dict(drawer.draw(blocks, spec.resolution))

    kept = BaseImages(Base(spec, device="cpu", cache=ContentCache(storage)), evaluation, spec.resolution)
    for block in blocks:
        found = kept.get(block)
        assert found is not None
        assert torch.equal(found, drawn[block].float().div(255))
        assert found.shape == (2, 3, spec.resolution, spec.resolution)


@pytest.mark.parametrize(
    ("nodes", "weights", "expected"),
    [
        ([{"CPU": 8, "GPU": 2, "memory": 1e10}, {"CPU": 8}], 10**9, ("cuda", 1.0, 1.0, 2)),
        ([{"CPU": 4, "memory": 64e9}, {"CPU": 8, "memory": 64e9}], 10**9, ("cpu", 1.0, 0.0, 12)),
        ([{"CPU": 8, "memory": 64e9}], 8 * 10**9, ("cpu", 4.0, 0.0, 2)),
        ([{"CPU": 8, "memory": 8e9}], 8 * 10**9, ("cpu", 8.0, 0.0, 1)),
    ],
)
def test_an_actor_has_a_gpu_or_as_many_cores_as_memory_leaves_it(
    nodes: list[dict[str, float]], weights: int, expected: tuple[str, float, float, int]
) -> None:
    device, count = plan_drawing(nodes, weights)
    assert (device.kind, device.cpus, device.gpus, count) == expected


def test_what_fails_becomes_a_batch_for_people_to_complete(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(f"{TREE}\n{LYING}\na cat running on the street\n")
    source = read_prompts(str(tmp_path / "p.txt"))
    listed = {each.wordings[0]: each for each in source.prompts}
    order = [
        (diagnosed(listed[text], broken=text != TREE), listed[text])
        for text in (LYING, "a cat running on the street", TREE)
    ]

    text = failing_batch(order, source, "embedded", "exemplars", tmp_path / "out.yaml")

    assert "# 8 of 8 images wrong, 100% [" in text and "seeds 1000, 1001" in text
    content = yaml.safe_load(text)
    assert [entry["prompt"] for entry in content["prompts"]] == [LYING, "a cat running on the street"]
    assert content["prompts"][0]["exemplars"] == "exemplars/a-person-lying-on-the-grass"
    assert content["prompts"][0]["guard_prompts"] == []
    written = json.loads(json.dumps(json_of(order, [], [], drawn=1)))
    assert [each["verdict"] for each in written["prompts"]] == ["fails", "fails", "undecided"]
    assert written["prompts"][0]["failing_seeds"] == list(range(1000, 1008))
    assert len(written["prompts"][0]["images"]) == 8
    assert table_of(order).row_count == 3


def test_entries_of_a_batch_file_stay_as_they_are(
    tmp_path: Path, small_sd3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRECTOR_EXEMPLAR_ROOTS", str(tmp_path))
    path = write_batch(tmp_path / "given", small_sd3, names=("person", "dog"))
    source = read_prompts(str(path))
    order = [(diagnosed(each, broken=each.wordings[0] == LYING), each) for each in source.prompts]
    out = tmp_path / "new" / "out.yaml"
    out.parent.mkdir()

    out.write_text(failing_batch(order, source, str(small_sd3), "exemplars", out))

    given, left = load_batch(path), load_batch(out)
    assert [entry.name for entry in left.prompts] == ["person"]
    assert left.prompts[0].model_dump(exclude={"exemplars"}) == given.prompts[0].model_dump(
        exclude={"exemplars"}
    )
    assert left.evaluation == given.evaluation
    assert left.exemplar_folder(left.prompts[0]).samefile(given.exemplar_folder(given.prompts[0]))
