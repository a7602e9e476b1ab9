"""The survey's page and calls over HTTP: what raters may do, what they may not, and that nothing tells the arms apart."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from corrector.preference.links import Links
from corrector.preference.vote_tables import FILE_NAME
from tests.support.surveys import LEFT, HttpRater, ServedSurvey, served_survey

HOSTILE = "</script><img src=x onerror=\"alert('1')\">&amp;\u202e"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSurvey]:
    """A survey for tests that take a rater of their own and leave it open."""
    with served_survey(tmp_path_factory.mktemp("shared"), title=HOSTILE, prompt=HOSTILE) as served:
        yield served


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedSurvey]:
    with served_survey(tmp_path) as served:
        yield served


def vote_through(rater: HttpRater, answers: dict[str, str] = LEFT, seconds: float = 5.0) -> None:
    while (view := rater.view()["view"]) is not None:
        assert rater.vote(view["id"], answers, seconds).status_code == 200


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_rater_votes_through_a_survey_and_resumes_where_it_was_left(shared: ServedSurvey) -> None:
    rater = shared.rater("through")
    state = rater.view()
    assert (state["answered"], state["total"], state["view"]["number"]) == (0, 6, 0)
    assert state["view"] == rater.view()["view"]
    assert rater.vote(state["view"]["id"]).status_code == 200
    later = HttpRater(rater.url).view()
    assert (later["answered"], later["view"]["number"]) == (1, 1)
    assert [later["view"]["left"], later["view"]["right"]] == state["next"]
    vote_through(rater)
    assert rater.view() == {"closed": False, "answered": 6, "total": 6, "view": None, "next": []}
    mine = [each for each in shared.store.ballots() if each.rater == shared.pseudonym("through")]
    assert len(mine) == 6 and sum(each.repeat for each in mine) == 1


def test_nothing_that_is_sent_tells_the_arms_apart(served: ServedSurvey) -> None:
    rater = served.rater()
    by_arm: dict[str, set[str]] = {"a": set(), "b": set()}
    arms = {name: arm for pair in served.survey.pairs for arm, name in (("a", pair.a), ("b", pair.b))}
    page = rater.get("/")
    sent = page.text + str(page.headers)
    while (view := rater.view()["view"]) is not None:
        answer = rater.post("view", {"browser": rater.browser})
        sent += answer.text + str(answer.headers)
        assert set(view) == {"id", "number", "prompt", "answers", "left", "right"}
        for side in ("left", "right"):
            image = rater.get(f"/images/{view[side]}.png")
            headers = {
                name: value for name, value in image.headers.items() if name not in ("date", "content-length")
            }
            by_arm[arms[view[side]]].add(str(sorted(headers.items())))
            sent += str(headers)
            assert b"base" not in image.content and b"corrected" not in image.content
        sent += str(rater.vote(view["id"]).text)
    assert by_arm["a"] == by_arm["b"] and len(by_arm["a"]) == 1
    assert not re.search(r"corrected|expected|\barm|seed", sent)


def test_every_answer_is_kept_from_caches_robots_and_other_sites(shared: ServedSurvey) -> None:
    rater = shared.rater()
    image = rater.view()["view"]["left"]
    answers = [rater.get(path) for path in ("/", f"/images/{image}.png", "/nothing", "/view")]
    answers += [httpx2.get(f"{shared.address}/forged/", verify=False), rater.post("votes", {})]
    for answer in answers:
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-robots-tag"] == "noindex, nofollow"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        kept = answer.headers["cache-control"]
        assert (
            kept.startswith("private")
            if answer.headers["content-type"] == "image/png"
            else kept == "no-store"
        )
    policy = answers[0].headers["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy


def test_hostile_texts_are_escaped(shared: ServedSurvey) -> None:
    rater = shared.rater(HOSTILE)
    page = rater.get("/").text
    assert page.count("<script>") == page.count("</script>") == 1 and "<img src=x" not in page
    assert "&lt;/script&gt;&lt;img src=x" in page
    assert rater.view()["view"]["prompt"] == HOSTILE


def test_a_forged_link_leads_nowhere(shared: ServedSurvey) -> None:
    rater = shared.rater("forged")
    view = rater.view()["view"]
    link, _, signature = rater.url.rpartition("/")[2].partition(".")
    other = Links(shared.folder, "other survey").token(link)
    for token in (f"{link}.{signature[::-1]}", link, other, "x" * 60, "%2e%2e", f"{link}.{signature}x"):
        forged = HttpRater(f"{shared.address}/{token}")
        assert forged.get("/").status_code == 404
        assert forged.post("view", {"browser": forged.browser}).status_code == 404
        assert forged.vote(view["id"]).status_code == 404
        assert forged.get(f"/images/{view['left']}.png").status_code == 404
    assert "not valid" in HttpRater(f"{shared.address}/{'x' * 60}").get("/").text
    for name in ("0" * 16, "..%2fsurvey", "..%2f..%2fsecret"):
        assert rater.get(f"/images/{name}.png").status_code == 404


def test_a_vote_on_a_view_that_is_not_the_raters_is_refused(shared: ServedSurvey) -> None:
    one, other = shared.rater("owner"), shared.rater("thief")
    view = one.view()["view"]["id"]
    assert code(other.vote(view)) == (404, "unknown_view")
    assert code(one.vote("0" * 16)) == (404, "unknown_view")
    assert one.post("view", {"browser": one.browser, "number": 1}).status_code == 404
    assert one.view()["answered"] == other.view()["answered"] == 0


def test_a_replayed_request_is_acknowledged_and_stored_once(served: ServedSurvey) -> None:
    rater = served.rater()
    body = rater.ballot(rater.view()["view"]["id"])
    answers = [rater.post("votes", body) for _ in range(3)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"stored": body["id"]})] * 3
    assert len(served.store.votes()) == 1
    changed = body | {"answers": dict.fromkeys(LEFT, "right")}
    assert code(rater.post("votes", changed)) == (409, "conflict")


def test_ten_tabs_show_one_view_and_its_last_vote_counts(served: ServedSurvey) -> None:
    rater = served.rater()
    views: list[dict[str, Any]] = []
    tabs = [threading.Thread(target=lambda: views.append(rater.view()["view"])) for _ in range(10)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert len(views) == 10 and all(view == views[0] for view in views)
    for number in range(10):
        last = "right" if number == 9 else "left"
        assert rater.vote(views[0]["id"], dict.fromkeys(LEFT, last)).status_code == 200
    (ballot,) = served.store.ballots()
    assert set(ballot.answers.values()) == {"a", "b"} - {ballot.left}
    assert rater.view()["view"]["number"] == 1
    (progress,) = served.store.progress()
    assert (progress.answered, progress.browsers) == (1, 1)


def test_a_shared_link_is_one_rater_in_several_browsers(served: ServedSurvey) -> None:
    rater = served.rater()
    vote_through(rater)
    for _ in range(2):
        HttpRater(rater.url).view()
    (progress,) = served.store.progress()
    assert (progress.answered, progress.browsers) == (6, 3)
    assert len({ballot.rater for ballot in served.store.ballots()}) == 1


def test_who_always_clicks_left_within_moments_is_recorded_as_such(served: ServedSurvey) -> None:
    rater = served.rater()
    vote_through(rater, LEFT, seconds=30.0)
    ballots = served.store.ballots()
    assert all(choice == ballot.left for ballot in ballots for choice in ballot.answers.values())
    # The client claims 30 s; the time between the view and the vote is the bound.
    views = [vote.view.shown for vote in served.store.votes()]
    assert all(ballot.seconds <= ballot.given - shown for ballot, shown in zip(ballots, views, strict=True))
    assert sum(ballot.seconds for ballot in ballots) < 30.0


def test_going_back_and_changing_replaces_the_answer(served: ServedSurvey) -> None:
    rater = served.rater()
    first = rater.view()["view"]
    rater.vote(first["id"])
    back = rater.view(0)
    assert back["view"] == first | {"answers": LEFT} and back["answered"] == 1
    rater.vote(first["id"], dict.fromkeys(LEFT, "both bad"))
    (ballot,) = served.store.ballots()
    assert set(ballot.answers.values()) == {"both bad"}
    assert rater.view()["view"]["number"] == 1


def test_a_closed_survey_says_so_and_takes_nothing(served: ServedSurvey) -> None:
    rater = served.rater()
    view = rater.view()["view"]["id"]
    before = rater.ballot(view)
    assert rater.post("votes", before).status_code == 200
    assert served.store.close() and not served.store.close()
    assert code(rater.vote(view)) == (410, "closed")
    assert rater.post("votes", before).status_code == 200
    assert (rater.view()["closed"], rater.view()["view"]) == (True, None)
    page = rater.get("/")
    assert page.status_code == 200 and "closed" in page.text and "<script>" not in page.text
    assert len(served.store.votes()) == 1


def test_a_forgotten_raters_link_leads_nowhere(served: ServedSurvey) -> None:
    rater = served.rater()
    vote_through(rater)
    served.store.forget("one")
    assert rater.get("/").status_code == 404 and rater.post("view", {"browser": "0" * 16}).status_code == 404
    assert len(served.store.ballots()) == 6


def test_a_vote_is_not_acknowledged_while_the_database_is_locked_or_gone(served: ServedSurvey) -> None:
    rater = served.rater()
    body = rater.ballot(rater.view()["view"]["id"])
    file = served.folder / FILE_NAME
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        answer = rater.post("votes", body)
        assert code(answer) == (503, "not_stored") and answer.headers["retry-after"] == "2"
        assert str(served.folder) not in answer.text
        # The page comes nevertheless: its script tries again.
        assert rater.get("/").status_code == 200
        other.execute("ROLLBACK")
    moved = file.rename(file.with_name("moved"))
    assert code(rater.post("votes", body)) == (503, "not_stored")
    moved.rename(file)
    assert served.store.votes() == []
    assert rater.post("votes", body).status_code == 200
    assert [vote.id for vote in served.store.votes()] == [body["id"]]


@pytest.mark.parametrize(
    "change",
    [
        {"answers": {}},
        {"answers": LEFT | {"overall": "up"}},
        {"answers": LEFT | {"more": "left"}},
        {"seconds": -1},
        {"seconds": "1"},
        {"id": "x"},
        {"view": "../../x"},
        {"browser": "<b>"},
        {"rater": "0" * 16},
        {"answers": {HOSTILE: "left"}},
    ],
    ids=str,
)
def test_a_body_that_is_no_vote_is_refused(shared: ServedSurvey, change: dict[str, Any]) -> None:
    rater = shared.rater("bodies")
    body = rater.ballot(rater.view()["view"]["id"])
    assert rater.post("votes", body | change).status_code == 400
    assert rater.view()["answered"] == 0


def test_a_body_without_end_or_sense_is_refused(shared: ServedSurvey) -> None:
    rater = shared.rater("bodies")
    for content, status in (
        (b"x" * 5000, 413),
        (b"", 400),
        (b"[1]", 400),
        (b"\xff", 400),
        (b'{"seconds": NaN}', 400),
    ):
        answer = httpx2.post(f"{rater.url}/votes", content=content, verify=False)
        assert answer.status_code == status, content[:10]
