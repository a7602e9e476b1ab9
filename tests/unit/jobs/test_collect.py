"""What users flagged becomes a batch file."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from corrector.prompts import BatchErrors, load_batch
from jobs import examples
from jobs.collect import main

GOOD_IMAGES = Path(examples.__file__).parent / "exemplars" / "person-lying-on-the-grass"


def verdict(prompt: str, verdict: str = "bad", **changed: Any) -> dict[str, Any]:
    request = {
        "prompt": prompt,
        "seeds": [7],
        "adapter": None,
        "base_revision": "r",
        "id": "x",
        "route": "base",
    }
    request |= {name: changed.pop(name) for name in list(changed) if name in request}
    return {"verdict": verdict, "note": "", "given": 1.7e9, "key": "shop", "request": request} | changed


def write(path: Path, *verdicts: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in verdicts))
    return path


def test_flagged_prompts_become_entries_most_flagged_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(
        tmp_path / "one.jsonl",
        verdict("a dog on the road", seeds=[1, 2]),
        verdict("A person lying  on the grass", key="shop", seeds=[5], note="third\nleg: # no"),
        verdict("a cat", "good"),
    )
    other = write(
        tmp_path / "other.jsonl",
        verdict("a person lying on the grass", key="press", seeds=[5, 6], adapter="grass@2", given=1.8e9),
        verdict("a dog on the road", "good"),
    )
    out = tmp_path / "flagged.yaml"
    assert main([str(one), str(other), "--out", str(out), "--base", "owner/name"]) == 0
    text = out.read_text()
    content = yaml.safe_load(text)
    assert content["base"] == "owner/name"
    assert [entry["prompt"] for entry in content["prompts"]] == [
        "A person lying on the grass",
        "a dog on the road",
    ]
    assert [entry["priority"] for entry in content["prompts"]] == [2, 1]
    assert "flagged 2 times by 2 keys; drawn by grass@2, the base" in text
    assert "seeds 5, 6" in text and "'third leg: # no'" in text
    assert "flagged 1 times by 1 key, 1 in favour" in text
    assert "A person lying on the grass" in capsys.readouterr().out


def test_the_file_is_a_batch_that_lacks_only_what_a_person_gives(tmp_path: Path) -> None:
    out = tmp_path / "flagged.yaml"
    write(tmp_path / "v.jsonl", verdict("a person: 'lying' on #1 {grass}"), verdict("naïve café, ёлка"))
    assert main([str(tmp_path / "v.jsonl"), "--out", str(out)]) == 0
    with pytest.raises(BatchErrors) as refused:
        load_batch(out)
    assert {error.field for error in refused.value.errors} == {"exemplars", "guard_prompts"}
    for entry in yaml.safe_load(out.read_text())["prompts"]:
        shutil.copytree(GOOD_IMAGES, tmp_path / entry["exemplars"])
    out.write_text(out.read_text().replace("guard_prompts: []", "guard_prompts: [a person standing]"))
    assert [entry.prompt for entry in load_batch(out).prompts] == [
        "a person: 'lying' on #1 {grass}",
        "naïve café, ёлка",
    ]


def test_prompts_with_one_name_get_folders_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "flagged.yaml"
    write(tmp_path / "v.jsonl", verdict("a résumé"), verdict("a resume"))
    assert main([str(tmp_path / "v.jsonl"), "--out", str(out)]) == 0
    assert len({entry["exemplars"] for entry in yaml.safe_load(out.read_text())["prompts"]}) == 2


def test_too_few_flags_are_no_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "v.jsonl", verdict("a dog"), verdict("a cat", "good"))
    assert main([str(tmp_path / "v.jsonl"), "--out", str(tmp_path / "out.yaml"), "--at-least", "2"]) == 1
    assert "2 verdicts, and no prompt flagged 2 times" in capsys.readouterr().out
    assert not (tmp_path / "out.yaml").exists()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "v.jsonl:2: the line: Invalid JSON"),
        (json.dumps(verdict("x", "awful")), "v.jsonl:2: verdict: Input should be 'good' or 'bad'"),
        (json.dumps(verdict("")), "v.jsonl:2: request.prompt"),
    ],
)
def test_a_line_that_is_no_verdict_is_named(
    tmp_path: Path, line: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "v.jsonl", verdict("a dog"))
    path.write_text(path.read_text() + line + "\n")
    assert main([str(path), "--out", str(tmp_path / "out.yaml")]) == 2
    assert why in capsys.readouterr().err


def test_nothing_is_written_over_and_what_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "v.jsonl", verdict("a dog"))
    (tmp_path / "out.yaml").write_text("mine")
    assert main([str(path), "--out", str(tmp_path / "out.yaml")]) == 2
    assert "is there already" in capsys.readouterr().err and (tmp_path / "out.yaml").read_text() == "mine"
    assert main([str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "new.yaml")]) == 2
    assert "none.jsonl: cannot be read" in capsys.readouterr().err
