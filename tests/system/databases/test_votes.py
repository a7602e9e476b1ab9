"""Votes in SQLite and PostgreSQL: stored once, refused where they are nobody's, nameless once a rater is forgotten."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from corrector.errors import UserError
from corrector.preference.exchange import export_votes, import_votes
from corrector.preference.showing import showings
from corrector.preference.store import VoteStore
from corrector.preference.survey import Ballot, Survey
from corrector.preference.votes import (
    MAX_VOTES_PER_VIEW,
    ConflictingVote,
    SurveyClosed,
    TooManyVotes,
    UnknownView,
    View,
)
from tests.support.surveys import LEFT, defined

RIGHT = dict.fromkeys(LEFT, "right")
SURVEY = defined(pairs=6, repeats=0.5)


@contextmanager
def opened(place: Path | str, survey: Survey = SURVEY) -> Iterator[VoteStore]:
    store = VoteStore(place, survey)
    try:
        yield store
    finally:
        store.dispose()


@pytest.fixture
def store(database: str) -> Iterator[VoteStore]:
    with opened(database) as store:
        yield store


def shown(store: VoteStore, rater: str, number: int = 0) -> View:
    return store.show(rater, number, showings(store.survey, rater)[number])


def vote(store: VoteStore, rater: str, view: View, answers: dict[str, str] = LEFT, **options: str) -> str:
    vote_id = options.get("vote_id", secrets.token_hex(16))
    store.vote(rater, vote_id=vote_id, view_id=view.id, answers=answers, seconds=2.0)
    return vote_id


def test_a_vote_that_is_sent_again_is_stored_once(store: VoteStore) -> None:
    rater = store.add_rater("Ann").pseudonym
    view = shown(store, rater)
    vote_id = vote(store, rater, view)
    vote(store, rater, view, vote_id=vote_id)
    (stored,) = store.votes()
    other: Ballot = store.ballots()[0]
    assert stored.answers == other.answers == dict.fromkeys(LEFT, view.left)
    with pytest.raises(ConflictingVote, match="another vote has this id"):
        vote(store, rater, view, RIGHT, vote_id=vote_id)
    assert len(store.votes()) == 1


def test_the_last_answer_to_a_view_counts_and_the_first_stays(store: VoteStore) -> None:
    rater = store.add_rater("Ann").pseudonym
    first, second = shown(store, rater, 0), shown(store, rater, 1)
    vote(store, rater, first)
    vote(store, rater, second)
    vote(store, rater, first, RIGHT)
    ballots = store.ballots()
    assert [ballot.pair for ballot in ballots] == [first.pair, second.pair]
    assert ballots[0].answers["overall"] != ballots[0].left
    assert len(store.votes()) == 3
    for _ in range(MAX_VOTES_PER_VIEW - 2):
        vote(store, rater, first)
    with pytest.raises(TooManyVotes):
        vote(store, rater, first, RIGHT)
    assert store.ballots()[0].answers["overall"] == first.left


def test_a_view_that_does_not_exist_or_is_anothers_takes_no_vote(store: VoteStore) -> None:
    one, other = (store.add_rater(name).pseudonym for name in ("Ann", "Ben"))
    mine = shown(store, one)
    for rater, view in ((other, mine), (one, replace(mine, id="0" * 16)), ("nobody", mine)):
        with pytest.raises(UnknownView):
            vote(store, rater, view)
    assert store.votes() == []


def test_a_view_that_is_shown_in_ten_tabs_is_one(store: VoteStore) -> None:
    rater = store.add_rater("Ann").pseudonym
    views: list[View] = []
    tabs = [threading.Thread(target=lambda: views.append(shown(store, rater))) for _ in range(10)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert len(views) == 10 and len({view.id for view in views}) == 1


def test_one_of_two_closings_wins_and_no_vote_comes_after_it(database: str) -> None:
    with opened(database) as store, opened(database) as other:
        rater = store.add_rater("Ann").pseudonym
        view = shown(store, rater)
        acknowledged: list[str] = []
        voting = threading.Event()

        def answer_until_closed() -> None:
            for _ in range(MAX_VOTES_PER_VIEW):
                try:
                    acknowledged.append(vote(store, rater, view))
                except SurveyClosed:
                    return
                voting.set()

        thread = threading.Thread(target=answer_until_closed)
        thread.start()
        assert voting.wait(60)
        won: list[bool] = []
        closings = [
            threading.Thread(target=lambda each=each: won.append(each.close())) for each in (store, other)
        ]
        for closing in closings:
            closing.start()
        for closing in closings:
            closing.join()
        thread.join()
        assert sorted(won) == [False, True]
        closed = other.closed()
        assert closed is not None
        assert [stored.id for stored in store.votes()] == acknowledged
        with pytest.raises(SurveyClosed):
            vote(store, rater, view)
        # A vote that was stored before is acknowledged again.
        vote(store, rater, view, vote_id=acknowledged[0])
        assert len(store.votes()) == len(acknowledged)


def test_a_forgotten_rater_leaves_votes_without_a_name(database: str) -> None:
    with opened(database) as store:
        ann = store.add_rater("Ann Example")
        store.add_rater("Ben")
        store.note_browser(ann.pseudonym, "b" * 16)
        vote(store, ann.pseudonym, shown(store, ann.pseudonym))
        before = store.ballots()
        store.forget("Ann Example")
        assert store.ballots() == before and before[0].rater == ann.pseudonym
        assert ann.link is not None and store.rater_of_link(ann.link) is None
        forgotten, ben = store.progress()
        assert (forgotten.rater.name, forgotten.browsers, forgotten.answered) == (None, 0, 1)
        assert ben.rater.name == "Ben"
        with pytest.raises(UserError, match="has no rater 'Ann Example'"):
            store.forget("Ann Example")
        assert store.add_rater("Ann Example").pseudonym != ann.pseudonym
    engine = create_engine(database)
    with engine.connect() as connection:
        for table in ("survey_raters", "survey_browsers", "survey_views", "survey_votes"):
            rows = str(connection.execute(text(f"SELECT * FROM {table}")).all())
            assert str(ann.link) not in rows and "b" * 16 not in rows
    engine.dispose()


def test_an_export_is_imported_exactly_and_only_once(database: str, tmp_path: Path) -> None:
    path, again = tmp_path / "votes.jsonl", tmp_path / "again.jsonl"
    with opened(database) as store:
        for name in ("Ann", "Ben"):
            rater = store.add_rater(name).pseudonym
            for number in range(9):
                vote(store, rater, shown(store, rater, number), RIGHT if number % 2 else LEFT)
            vote(store, rater, shown(store, rater, 0), RIGHT)
        assert export_votes(store, path) == 20
        ballots = store.ballots()
        assert import_votes(store, path) == 0 and store.ballots() == ballots
    assert "Ann" not in path.read_text()
    with opened(tmp_path / "other") as other:
        assert import_votes(other, path) == 20
        assert other.ballots() == ballots
        export_votes(other, again)
    assert again.read_bytes() == path.read_bytes()


def test_another_survey_of_the_same_id_is_refused(database: str) -> None:
    with opened(database):
        pass
    with opened(database):
        pass
    with pytest.raises(UserError, match="holds another survey defined"):
        VoteStore(database, defined(pairs=7))
