"""Verdicts: stored with what they are about, by whoever had it drawn, also after a restart."""

import asyncio
import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from serving.ingress.app import create_app
from serving.ingress.feedback_store import MAX_VERDICTS, FeedbackStore, GenerationRecord, Verdict
from serving.ingress.images import generation
from serving.ingress.observer import IngressObserver
from serving.settings import IngressSettings
from tests.support.ingress import LYING, World, post, serving
from tests.unit.serving.ingress.test_access import add, bearer


def drawn(number: int, key: str = "team") -> GenerationRecord:
    return GenerationRecord(
        id=f"r{number}",
        key=key,
        created=1.0,
        prompt=LYING,
        seeds=(1, 2),
        adapter="lying@1",
        adapter_sha256="0" * 64,
        route="exact",
        base_revision="b",
        settings={"size": "64x64"},
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_verdict_is_stored_with_prompt_seeds_and_adapter(address: str, world: World, stream: bool) -> None:
    body = {
        "prompt": LYING,
        "seed": 4,
        "num_inference_steps": 2,
        "negative_prompt": "a dog",
        "stream": stream,
    }
    request_id = post(address, body).headers["x-request-id"]
    verdict = {"request_id": request_id, "verdict": "bad", "note": "drei Beine\n草"}
    answer = post(address, verdict, path="/v1/feedback")
    assert (answer.status_code, answer.json()) == (200, {"request_id": request_id, "verdict": "bad"})
    line = json.loads(world.verdicts.read_text().splitlines()[-1])
    assert (line["verdict"], line["note"], line["key"]) == ("bad", "drei Beine\n草", "anonymous")
    request = line["request"]
    assert (request["prompt"], request["seeds"], request["adapter"]) == (LYING, [4], "lying@1")
    assert request["settings"]["negative_prompt"] == "a dog"
    assert request["adapter_sha256"] == world.snapshot.adapters["lying"].champion.identity.sha256


def test_what_was_not_drawn_gets_no_verdict(address: str) -> None:
    failed = post(address, {"prompt": LYING, "adapter": "nobody"}).headers["x-request-id"]
    for unknown in ("nothing", failed):
        answer = post(address, {"request_id": unknown, "verdict": "good"}, path="/v1/feedback")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "request_not_found")
    for wrong in ({"note": "x" * 2001}, {"note": "\x00"}, {"request_id": "a b"}, {"verdict": "Bad"}):
        answer = post(address, {"request_id": "a", "verdict": "bad", **wrong}, path="/v1/feedback")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, *wrong)


def test_a_key_judges_only_what_it_had_drawn(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    mine, other = (add(path, name, capsys=capsys) for name in ("mine", "other"))
    with serving(create_app(world.service, IngressSettings(keys=path))) as address:
        for key in (mine, other):
            headers = bearer(key) | {"x-request-id": f"same-for-both-{key == mine}"}
            assert (
                post(address, {"prompt": LYING, "num_inference_steps": 1}, headers=headers).status_code == 200
            )
        verdict = {"request_id": "same-for-both-True", "verdict": "good"}
        assert post(address, verdict, path="/v1/feedback", headers=bearer(other)).status_code == 404
        assert post(address, verdict, path="/v1/feedback", headers=bearer(mine)).status_code == 200


def test_requests_outlive_the_process_and_the_oldest_go(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path, remembered=100)
    for number in range(600):
        store.remember(drawn(number))
    store.close()
    again = FeedbackStore(tmp_path, remembered=100)
    assert again.record(Verdict("r599", "team", "good"))
    assert not again.record(Verdict("r0", "team", "good"))
    assert not again.record(Verdict("r599", "other", "good"))
    again.close()
    assert len((tmp_path / "verdicts.jsonl").read_text().splitlines()) == 1


def test_a_request_has_a_bounded_number_of_verdicts(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path, remembered=100)
    store.remember(drawn(1))
    stored = [store.record(Verdict("r1", "team", "bad")) for _ in range(MAX_VERDICTS + 3)]
    store.close()
    assert stored == [True] * MAX_VERDICTS + [False] * 3
    assert len((tmp_path / "verdicts.jsonl").read_text().splitlines()) == MAX_VERDICTS


def test_several_processes_may_share_the_folder(tmp_path: Path) -> None:
    stores = [FeedbackStore(tmp_path, remembered=10_000) for _ in range(4)]

    def work(index: int) -> None:
        for number in range(50):
            stores[index].remember(drawn(1000 * index + number))
            assert stores[index - 1].record(Verdict(f"r{1000 * index + number}", "team", "bad", "x" * 2000))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert len({line["request"]["id"] for line in lines}) == 200
    for store in stores:
        store.close()


class Silent:
    """A feedback store that does not answer."""

    async def remember(self, request: GenerationRecord) -> None:
        await asyncio.Event().wait()

    async def record(self, verdict: Verdict) -> bool:
        return False


class Losses(IngressObserver):
    def __init__(self) -> None:
        self.lost = 0

    def feedback_lost(self) -> None:
        self.lost += 1


@pytest.mark.parametrize("stream", [False, True])
def test_images_do_not_wait_for_a_store_that_does_not_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    monkeypatch.setattr(generation, "_REMEMBER_SECONDS", 0.1)
    losses = Losses()
    app = create_app(replace(world.service, feedback=Silent()), IngressSettings(), losses)
    with serving(app) as address:
        body = {"prompt": LYING, "num_inference_steps": 1, "stream": stream}
        answer = post(address, body, timeout=60)
    assert answer.status_code == 200 and "b64_json" in answer.text
    assert losses.lost == 1
    assert "is not remembered: no answer in 0.1 s" in caplog.text


def test_the_database_has_a_rollback_journal_also_where_it_had_a_write_ahead_log(tmp_path: Path) -> None:
    """A write-ahead log needs memory that all writers share: no network file system has it."""
    FeedbackStore(tmp_path, remembered=100).close()
    with closing(sqlite3.connect(tmp_path / "requests.sqlite")) as before:
        assert before.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        before.execute("PRAGMA journal_mode=WAL")  # as earlier releases left it
        before.execute("INSERT INTO requests (key, id, request) VALUES ('team', 'old', '{}')")
        before.commit()
    store = FeedbackStore(tmp_path, remembered=100)
    assert store.record(Verdict("old", "team", "good"))
    store.remember(drawn(1))
    assert not list(tmp_path.glob("*-wal"))
    store.close()


def test_a_verdict_that_cannot_be_written_may_be_given_again(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path, remembered=100)
    store.remember(drawn(1))
    (tmp_path / "verdicts.jsonl").mkdir()
    for _ in range(MAX_VERDICTS):
        with pytest.raises(IsADirectoryError):
            store.record(Verdict("r1", "team", "bad"))
    (tmp_path / "verdicts.jsonl").rmdir()
    assert store.record(Verdict("r1", "team", "bad"))
    store.close()
