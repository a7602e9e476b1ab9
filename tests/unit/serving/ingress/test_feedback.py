"""Verdicts: stored with what they are about, by whoever had it drawn, also after a restart."""

import json
import threading
from pathlib import Path

import pytest

from serving.ingress.app import create_app
from serving.ingress.feedback import MAX_VERDICTS, FeedbackStore
from serving.ingress.service import DrawnRequest, Verdict
from serving.ingress.settings import IngressSettings
from tests.support.ingress import LYING, World, post, serving
from tests.unit.serving.ingress.test_access import add, bearer


def drawn(number: int, key: str = "team") -> DrawnRequest:
    return DrawnRequest(
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
