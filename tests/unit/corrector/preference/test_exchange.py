"""Files of votes: a line that is no vote on this survey is named, and nothing of its file is stored; tasks of Label Studio."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from corrector.errors import UserError
from corrector.preference.exchange import export_label_studio, export_votes, import_votes
from corrector.preference.showing import showings
from corrector.preference.store import VoteStore
from corrector.preference.survey import QUESTIONS
from tests.support.surveys import LEFT, defined


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VoteStore]:
    store = VoteStore(tmp_path, defined(pairs=4))
    rater = store.add_rater("Ann").pseudonym
    for number, showing in enumerate(showings(store.survey, rater)):
        view = store.show(rater, number, showing)
        store.vote(rater, vote_id=secrets.token_hex(16), view_id=view.id, answers=LEFT, seconds=1.5)
    yield store
    store.dispose()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"survey": "other"}, "is of the survey 'other'"),
        ({"pair": "f" * 16}, "defined has no pair ffff"),
        ({"answers": {"overall": "a"}}, r"answers \['overall'\]"),
        ({"answers": LEFT}, r"answers\.body"),
        ({"vote": "../../etc"}, "vote: String should match"),
        ({"rater": "<b>"}, "rater: String should match"),
        ({"seconds": -1}, "seconds: Input should be"),
        ({"given": "NaN"}, "given: Input should be"),
        ({"extra": 1}, "extra: Extra inputs"),
        ({"left": "c"}, "left: Input should be"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_line_is_named_and_nothing_is_imported(
    store: VoteStore, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    path = tmp_path / "votes.jsonl"
    export_votes(store, path)
    first, second, *_ = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}\n")
    other = VoteStore(tmp_path / "other", store.survey)
    with pytest.raises(UserError, match=rf"votes\.jsonl:2: {named}"):
        import_votes(other, path)
    assert other.votes() == []
    other.dispose()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"answers": dict.fromkeys(QUESTIONS, "both bad")}, "another vote"),
        ({"vote": "0" * 32, "number": 3}, "view"),
    ],
)
def test_a_line_that_contradicts_what_is_stored_stores_nothing(
    store: VoteStore, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    path = tmp_path / "votes.jsonl"
    export_votes(store, path)
    first, *_ = path.read_text().splitlines()
    new = json.loads(first) | {"vote": "1" * 32}
    path.write_text(f"{json.dumps(new)}\n{json.dumps(json.loads(first) | change)}\n")
    with pytest.raises(UserError, match=named):
        import_votes(store, path)
    assert len(store.votes()) == 4


def test_a_closed_survey_takes_no_import(store: VoteStore, tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    export_votes(store, path)
    other = VoteStore(tmp_path / "other", store.survey)
    other.close()
    with pytest.raises(UserError, match="closed"):
        import_votes(other, path)
    other.dispose()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[]\n", b"\n[1"])
def test_a_file_that_is_no_export_is_refused(store: VoteStore, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"votes\.jsonl"):
        import_votes(store, path)


def test_tasks_of_label_studio_hold_the_pairs_and_the_answers(store: VoteStore, tmp_path: Path) -> None:
    configuration = export_label_studio(store.survey, store.ballots(), tmp_path / "tasks.json")
    view = ET.parse(configuration).getroot()
    controls = {each.get("name"): each for each in view.iter("Choices")}
    shown = {each.get("name"): each.get("value") for each in view.iter("Image")}
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    names = [each.get("name") for each in view.iter() if each.get("name")]
    assert len(set(names)) == len(names)
    assert list(controls) == list(QUESTIONS) and shown == {"left": "$left", "right": "$right"}
    chosen = {ballot.pair: ballot.answers["overall"] for ballot in store.ballots()}
    assert len(tasks) == 4
    for task in tasks:
        pair = next(pair for pair in store.survey.pairs if pair.id == task["data"]["pair"])
        (annotation,) = task["annotations"]
        assert annotation["lead_time"] >= 0
        for result in annotation["result"]:
            options = {each.get("value") for each in controls[result["from_name"]].iter("Choice")}
            (side,) = result["value"]["choices"]
            assert side in options and result["to_name"] in shown and result["type"] == "choices"
            image = {"a": pair.a, "b": pair.b}[chosen[pair.id]]
            assert task["data"][side] == f"/data/local-files/?d=images/{image}.png"
