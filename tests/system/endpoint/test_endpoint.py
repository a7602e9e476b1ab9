"""What a product team sees of the endpoint on Ray Serve, and what it does when its parts fail.

What the ingress, the engine, the router and the catalogue do by themselves is shown in tests/unit/serving.
"""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from cluster.monitoring.dashboard import OF_GPU_NODES, alert_expressions, dashboard_expressions, metrics_of
from corrector.feedback import FILE_NAME, read_verdicts
from corrector.preference.links import Links
from corrector.preference.survey_folder import open_survey
from corrector.registry import retire
from tests.support.endpoint import Endpoint
from tests.support.ingress import openai_client, pixels, post
from tests.support.metrics_pages import exposed
from tests.support.served_registry import NAME
from tests.support.surveys import HttpRater
from tests.support.waiting import wait_until
from tests.system.endpoint.conftest import ALIAS, PAGE

pytestmark = pytest.mark.xdist_group("ray")

LYING = "a person lying on the grass"
GUARD = "a person standing on the grass"


def test_it_is_ready_and_lists_the_base_and_the_champion(endpoint: Endpoint) -> None:
    ready = endpoint.ready()
    assert ready["registry"]["ok"] is True
    assert ready["refused"] == 0
    models = [model.id for model in openai_client(endpoint.address).models.list()]
    assert models == ["embedded", NAME, ALIAS]


def test_head_and_the_preflights_of_a_page_pass_rays_proxies(endpoint: Endpoint) -> None:
    with httpx2.Client(base_url=endpoint.address, verify=False, timeout=60) as client:
        for path in ("/", "/healthz", "/readyz", "/v1/models"):
            head, get = client.head(path), client.get(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(get.content))
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        preflight = client.options("/v1/images/generations", headers={"origin": PAGE, **asked})
        drawn = client.post("/v1/route", json={"prompt": LYING}, headers={"origin": PAGE})
    assert (preflight.status_code, drawn.status_code) == (200, 200)
    assert preflight.headers["access-control-allow-headers"] == "authorization"
    for answer in (preflight, drawn):
        assert answer.headers["access-control-allow-origin"] == PAGE
    assert len(drawn.headers.get_list("x-request-id")) == 1


def test_a_survey_is_answered_beside_it(endpoint: Endpoint) -> None:
    folder = endpoint.folder / "survey"
    with open_survey(folder) as (survey, store):
        link = store.add_rater("Ann").link
        assert link is not None
        token = Links(folder, survey.id).token(link)
        rater = HttpRater(f"{endpoint.address}/survey/{token}")
        assert rater.get("/").headers["referrer-policy"] == "no-referrer"
        while (view := rater.view()["view"]) is not None:
            assert rater.get(f"/images/{view['left']}.png").status_code == 200
            assert rater.vote(view["id"]).status_code == 200
        assert len(store.ballots()) == 6
    logs = [
        path for path in (Path(endpoint.head.scratch) / "session_latest/logs").rglob("*") if path.is_file()
    ]
    assert logs and not [path for path in logs if token.encode() in path.read_bytes()]


def test_the_openai_client_gets_a_corrected_prompt_corrected_and_its_guard_from_the_base(
    endpoint: Endpoint,
) -> None:
    client = openai_client(endpoint.address)
    drawn = {}
    for prompt in (LYING, GUARD):
        for adapter in ("auto", "base"):
            answer = client.images.with_raw_response.generate(
                prompt=prompt,
                model="embedded",
                extra_body={"seed": 7, "num_inference_steps": 2, "adapter": adapter},
            )
            image = answer.parse().data
            assert image is not None and image[0].b64_json is not None
            drawn[prompt, adapter] = (answer.headers["x-adapter"], pixels(image[0].b64_json))
    assert drawn[LYING, "auto"][0] == NAME
    assert drawn[GUARD, "auto"][0] == drawn[LYING, "base"][0] == "base"
    assert not np.array_equal(drawn[LYING, "auto"][1], drawn[LYING, "base"][1])
    assert np.array_equal(drawn[GUARD, "auto"][1], drawn[GUARD, "base"][1])


def test_the_answer_says_how_the_image_came_about(endpoint: Endpoint) -> None:
    answer = endpoint.draw(LYING)
    version = endpoint.registry.client.get_model_version(NAME, "1")
    assert answer.headers["x-adapter-version"] == "1"
    assert answer.headers["x-adapter-sha256"] == version.tags["adapter_sha256"]
    assert answer.headers["x-route"] == "exact"
    assert int(answer.headers["x-denoise-ms"]) > 0
    with Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))) as image:
        text = dict(image.text)  # type: ignore[attr-defined]  # of PNG files
    assert text["adapter"] == NAME and text["seed"] == "7"
    assert text["request_id"] == answer.headers["x-request-id"]


def test_a_request_has_one_id_the_clients_own_where_it_sent_one(endpoint: Endpoint) -> None:
    for offered, expected in (
        ("team-42", "team-42"),
        ("two words", "req-[0-9a-f]+"),
        (None, "[A-Za-z0-9-]+"),
    ):
        headers = {"x-request-id": offered} if offered else {}
        answer = post(endpoint.address, {"prompt": GUARD, "num_inference_steps": 1}, headers=headers)
        (found,) = answer.headers.get_list("x-request-id")
        assert re.fullmatch(expected, found)


def test_a_client_cannot_set_ray_serves_own_time_limit(endpoint: Endpoint) -> None:
    answer = post(
        endpoint.address,
        {"prompt": GUARD, "num_inference_steps": 4},
        headers={"x-request-timeout-seconds": "0.001"},
    )
    assert answer.status_code == 200


def test_a_missed_deadline_is_told_in_json(endpoint: Endpoint) -> None:
    answer = endpoint.draw(GUARD, num_inference_steps=100, timeout=0.2)
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "deadline_missed")
    assert answer.headers["x-should-retry"] == "false"


def test_previews_come_before_the_image_which_is_the_same_as_without(endpoint: Endpoint) -> None:
    stream = openai_client(endpoint.address).images.generate(
        prompt=LYING,
        model="embedded",
        stream=True,
        partial_images=2,
        extra_body={"seed": 7, "num_inference_steps": 4},
    )
    events = list(stream)
    kinds = [event.type.rpartition(".")[2] for event in events]
    assert kinds == ["partial_image", "partial_image", "completed"]
    whole = endpoint.draw(LYING, num_inference_steps=4).json()["data"][0]["b64_json"]
    assert np.array_equal(pixels(events[-1].b64_json), pixels(whole))


def test_a_client_that_goes_away_frees_its_rows(endpoint: Endpoint) -> None:
    """Also one that asks Ray Serve to draw on without it."""
    tenth = post(endpoint.address, {"prompt": GUARD, "num_inference_steps": 10, "n": 8})
    seconds = int(tenth.headers["x-denoise-ms"]) / 1000
    body = json.dumps({"prompt": GUARD, "num_inference_steps": 100, "n": 8}).encode()
    host, port = endpoint.address.removeprefix("http://").split(":")
    for extra in ("", "x-request-disconnect-disabled: ?1\r\n"):
        head = (
            f"POST /v1/images/generations HTTP/1.1\r\nHost: {host}\r\n"
            f"Content-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)
            wait_until(lambda: endpoint.ready()["engine"]["drawing"] > 0)
        # Drawn to its end it would take twice as long.
        wait_until(lambda: endpoint.ready()["engine"]["drawing"] == 0, 1 + 5 * seconds)


def test_feedback_is_kept_for_the_next_batch(endpoint: Endpoint) -> None:
    answer = endpoint.draw(GUARD)
    verdict = {"request_id": answer.headers["x-request-id"], "verdict": "bad", "note": "three legs"}
    given = post(endpoint.address, verdict, path="/v1/feedback")
    assert given.status_code == 200
    (kept,) = read_verdicts(endpoint.registry.root.parent / "feedback" / FILE_NAME)
    assert (kept["note"], kept["request"]["prompt"], kept["request"]["seeds"]) == ("three legs", GUARD, [7])


def test_a_candidate_draws_for_whoever_names_it_where_any_version_may_be_drawn(endpoint: Endpoint) -> None:
    number = endpoint.registry.add(20)
    for version in (number, "candidate"):
        answer = endpoint.draw(GUARD, adapter=f"{NAME}@{version}")
        assert answer.headers["x-adapter-version"] == number
    unknown = endpoint.draw(GUARD, adapter=f"{NAME}@999")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert endpoint.champion() == "1"


def test_changing_the_champion_under_load_fails_no_request(endpoint: Endpoint) -> None:
    two = endpoint.registry.add(2)
    stop = threading.Event()
    statuses: Counter[tuple[int, str]] = Counter()

    def ask() -> None:
        while not stop.is_set():
            answer = endpoint.draw(LYING)
            statuses[answer.status_code, answer.headers.get("x-adapter-version", "base")] += 1

    def drawn(version: str, count: int) -> bool:
        return statuses[200, version] >= count

    with ThreadPoolExecutor(2) as clients:
        asking = [clients.submit(ask) for _ in range(2)]
        try:
            for version in (two, "1"):
                endpoint.registry.crown(version)
                endpoint.serves(version)
                wait_until(partial(drawn, version, statuses[200, version] + 4))
        finally:
            stop.set()
        for client in asking:
            client.result()
    assert {status for status, _ in statuses} == {200}
    assert {version for _, version in statuses} == {"1", two}


def test_a_retired_champion_leaves_its_prompt_to_the_base(endpoint: Endpoint) -> None:
    retire(NAME, who="rosa", why="blurs faces", **endpoint.registry.place)
    endpoint.serves(None)
    assert endpoint.draw(LYING).headers["x-route"] == "base"
    endpoint.registry.crown("1")
    endpoint.serves("1")


@contextmanager
def without_registry(endpoint: Endpoint) -> Iterator[None]:
    """The registry's database is damaged, and the endpoint has found that out; afterwards it is whole, likewise."""
    database = endpoint.registry.root / "mlflow.db"
    whole = database.read_bytes()
    database.write_bytes(b"not a database" * 1000)
    try:
        wait_until(lambda: endpoint.ready()["registry"]["ok"] is False)
        yield
    finally:
        database.write_bytes(whole)
    wait_until(lambda: endpoint.ready()["registry"]["ok"] is True)
    assert endpoint.champion() == "1"


def test_without_the_registry_everything_is_served_on(endpoint: Endpoint) -> None:
    with without_registry(endpoint):
        assert endpoint.draw(LYING).headers["x-adapter-version"] == "1"


@pytest.mark.slow
def test_a_catalogue_that_starts_without_the_registry_serves_what_was_served(endpoint: Endpoint) -> None:
    with without_registry(endpoint):
        killed = endpoint.replica("catalogue")
        killed.kill()
        killed.wait(60)
        # Known again, and from the next replica: the first one's answers are forgotten when it is gone.
        wait_until(lambda: endpoint.ready()["registry"]["age_seconds"] is None)
        assert endpoint.draw(LYING).headers["x-adapter-version"] == "1"


def test_an_image_whose_engine_is_killed_is_drawn_by_the_next_one(endpoint: Endpoint) -> None:
    expected = pixels(endpoint.draw(LYING, num_inference_steps=100).json()["data"][0]["b64_json"])
    with ThreadPoolExecutor(2) as clients:
        asked = [clients.submit(endpoint.draw, LYING, num_inference_steps=100) for _ in range(2)]
        wait_until(lambda: endpoint.ready()["engine"].get("drawing", 0) > 0)
        endpoint.replica("engine").kill()
        for answer in asked:
            drawn = answer.result()
            assert drawn.status_code == 200, drawn.text
            assert np.array_equal(pixels(drawn.json()["data"][0]["b64_json"]), expected)
    assert endpoint.ready()["ready"] is True


@pytest.mark.slow
def test_a_hundred_at_once_are_all_answered(endpoint: Endpoint) -> None:
    with ThreadPoolExecutor(100) as clients:
        answers = list(
            clients.map(lambda seed: endpoint.draw(GUARD, seed=seed, num_inference_steps=1), range(100))
        )
    assert {answer.status_code for answer in answers} <= {200, 429}
    assert sum(answer.status_code == 200 for answer in answers) > 50
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "overloaded" and answer.headers["retry-after"]


@pytest.mark.slow
def test_prometheus_is_told_what_alerts_and_dashboard_ask_for(endpoint: Endpoint) -> None:
    endpoint.draw(LYING)
    assert endpoint.draw(GUARD, adapter="nobody").status_code == 404
    asked_for = metrics_of([*alert_expressions(), *dashboard_expressions()]) - OF_GPU_NODES
    expected = {name for name in asked_for if not name.startswith("ray_corrector_job_")}
    expected |= {"ray_corrector_step_rows_count", "ray_corrector_adapter_swaps_total"}
    wait_until(
        lambda: expected <= exposed(endpoint.head).keys(),
        otherwise=lambda: f"not exposed: {expected - exposed(endpoint.head).keys()}",
    )
    paths = {labels["path"] for labels in exposed(endpoint.head)["ray_corrector_http_request_seconds_bucket"]}
    assert "/v1/images/generations" in paths
