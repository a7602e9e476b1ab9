"""VoteStore: a survey's raters, the views that they were shown and their votes, in a database."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Table, delete, func, insert, select, update
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from corrector.errors import UserError
from corrector.preference.showing import Showing
from corrector.preference.survey import Ballot, Choice, Survey
from corrector.preference.vote_tables import BROWSERS, RATERS, SURVEYS, VIEWS, VOTES, open_engine
from corrector.preference.votes import (
    MAX_BROWSERS,
    MAX_VOTES_PER_VIEW,
    ConflictingVote,
    Rater,
    RaterProgress,
    StoredVote,
    SurveyClosed,
    TooManyVotes,
    UnknownView,
    View,
    chosen_arm,
)

_BUSY_SECONDS = 5.0


class StoreError(UserError):
    """The database cannot be used at the moment; nothing was stored, and the same call may succeed later."""


class VoteStore:
    """The votes of one survey. Votes are only ever added. Blocks, so call it from a thread; several processes may write.

    All methods raise StoreError where the database is locked, full or gone.
    """

    def __init__(self, place: Path | str, survey: Survey, *, busy_seconds: float = _BUSY_SECONDS) -> None:
        """Opens the database, makes its tables where they are missing, and enters the survey.

        Args:
            place: A SQLAlchemy URL, or a folder for a SQLite file. A network file system can hold the file if its POSIX
                locks work: it has a rollback journal, since WAL needs shared memory.
            busy_seconds: Longest time to wait for another writer of a SQLite file.

        Raises:
            UserError: The database holds another survey of this id, or cannot be used.
        """
        self.survey = survey
        self._place = place
        definition = survey.model_dump(mode="json")
        with self._reported():
            self._engine = open_engine(place, busy_seconds)
            try:
                with self._engine.begin() as connection:
                    connection.execute(insert(SURVEYS).values(id=survey.id, definition=definition))
            except IntegrityError:
                known = select(SURVEYS.c.definition).where(SURVEYS.c.id == survey.id)
                with self._engine.connect() as connection:
                    if connection.scalar(known) != definition:
                        raise UserError(
                            f"{_shown(place)}: holds another survey {survey.id}; a survey does not change once it is made"
                        ) from None

    def add_rater(self, name: str) -> Rater:
        """The rater of this name, who is made where there is none."""
        new = Rater(secrets.token_hex(8), name, secrets.token_hex(8))
        with self._reported():
            try:
                with self._engine.begin() as connection:
                    connection.execute(insert(RATERS).values(survey=self.survey.id, **vars(new)))
                return new
            except IntegrityError:
                found = self._rater(RATERS.c.name == name)
                assert found is not None
                return found

    def rater_of_link(self, link: str) -> Rater | None:
        """The rater whom the link names; None where there is none, or the rater was forgotten."""
        with self._reported():
            return self._rater(RATERS.c.link == link)

    def forget(self, name: str) -> None:
        """Delete what identifies a rater: the name, the link, and the marks of the rater's browsers. The votes stay.

        Raises:
            UserError: There is no rater of this name.
        """
        with self._reported(), self._engine.begin() as connection:
            forgotten = connection.execute(
                update(RATERS)
                .where(RATERS.c.survey == self.survey.id, RATERS.c.name == name)
                .values(name=None, link=None)
                .returning(RATERS.c.pseudonym)
            ).all()
            if not forgotten:
                raise UserError(f"{self.survey.id}: has no rater {name!r}; `progress` lists the raters")
            (pseudonym,) = forgotten[0]
            connection.execute(
                delete(BROWSERS).where(BROWSERS.c.survey == self.survey.id, BROWSERS.c.rater == pseudonym)
            )

    def note_browser(self, rater: str, browser: str) -> None:
        """Remember that the rater's link was opened in this browser, of MAX_BROWSERS at most."""
        of_rater = self._of_survey(BROWSERS, BROWSERS.c.browser).where(BROWSERS.c.rater == rater)
        with self._reported():
            with self._engine.connect() as connection:
                known = connection.scalars(of_rater).all()
            if browser in known or len(known) >= MAX_BROWSERS:
                return
            mark = insert(BROWSERS).values(survey=self.survey.id, rater=rater, browser=browser)
            # Another tab of the browser may be faster.
            with suppress(IntegrityError), self._engine.begin() as connection:
                connection.execute(mark)

    def show(self, rater: str, number: int, showing: Showing) -> View:
        """Log that a rater is shown the pair at this position; returns the view logged first where it was shown before."""
        with self._reported():
            if (known := self._view(rater, number)) is not None:
                return known
            view = View(secrets.token_hex(8), number, showing.pair, showing.left, showing.repeat, time.time())
            try:
                with self._engine.begin() as connection:
                    connection.execute(insert(VIEWS).values(survey=self.survey.id, rater=rater, **vars(view)))
                return view
            except IntegrityError:  # another tab was faster
                known = self._view(rater, number)
                assert known is not None
                return known

    def answered(self, rater: str) -> dict[int, Mapping[str, Choice]]:
        """The rater's last answers by the number of the view."""
        return {vote.view.number: vote.answers for vote in self._votes(VIEWS.c.rater == rater)}

    def vote(
        self, rater: str, *, vote_id: str, view_id: str, answers: Mapping[str, str], seconds: float
    ) -> None:
        """Store a vote on a view; after the return, it survives a crash of the process and of the machine.

        A vote whose id is stored already, with the same view and answers, is not stored again.

        Args:
            vote_id: Drawn by the client; 32 hexadecimal digits.
            answers: "left", "right" or "both bad" by question.
            seconds: What the client says it took. Stored is no more than the time since the view was logged.

        Raises:
            VoteRefused: See its subclasses.
        """
        with self._reported():
            found = self._one_view((VIEWS.c.rater == rater) & (VIEWS.c.id == view_id))
            if found is None:
                raise UnknownView(f"{view_id}: this rater was shown no such view")
            chosen = {question: chosen_arm(answer, found.left) for question, answer in answers.items()}
            now = time.time()
            line = StoredVote(rater, found, vote_id, chosen, max(0.0, min(seconds, now - found.shown)), now)
            try:
                with self._engine.begin() as connection:
                    self._insert(connection, line)
            except IntegrityError:
                self._check_same(line)

    def close(self) -> bool:
        """Take no more votes; returns False where the survey was closed before."""
        closing = update(SURVEYS).where(SURVEYS.c.id == self.survey.id, SURVEYS.c.closed.is_(None))
        with self._reported(), self._engine.begin() as connection:
            return connection.execute(closing.values(closed=time.time())).rowcount == 1

    def closed(self) -> float | None:
        """When the survey was closed, in seconds since 1970; None: it is open."""
        with self._reported(), self._engine.connect() as connection:
            return connection.scalar(select(SURVEYS.c.closed).where(SURVEYS.c.id == self.survey.id))

    def progress(self) -> list[RaterProgress]:
        """How far every rater is, in the order in which their links were made."""
        mine = RATERS.c.survey == self.survey.id
        browsers = (
            select(BROWSERS.c.rater, func.count().label("n"))
            .where(BROWSERS.c.survey == self.survey.id)
            .group_by(BROWSERS.c.rater)
        )
        votes = (
            select(
                VIEWS.c.rater,
                func.count(VIEWS.c.id.distinct()).label("n"),
                func.max(VOTES.c.given).label("last"),
            )
            .join(VOTES, (VOTES.c.survey == VIEWS.c.survey) & (VOTES.c.view == VIEWS.c.id))
            .where(VIEWS.c.survey == self.survey.id)
            .group_by(VIEWS.c.rater)
        )
        with self._reported(), self._engine.connect() as connection:
            opened = {row.rater: row.n for row in connection.execute(browsers)}
            given = {row.rater: row for row in connection.execute(votes)}
            raters = connection.execute(select(RATERS).where(mine).order_by(RATERS.c.number)).all()
        return [
            RaterProgress(
                Rater(row.pseudonym, row.name, row.link),
                given[row.pseudonym].n if row.pseudonym in given else 0,
                opened.get(row.pseudonym, 0),
                given[row.pseudonym].last if row.pseudonym in given else None,
            )
            for row in raters
        ]

    def votes(self) -> list[StoredVote]:
        """All votes in the order in which they arrived, those that were replaced later included."""
        return self._votes()

    def ballots(self) -> list[Ballot]:
        """The last answer to every view, in the order in which the views were answered first."""
        last = {(vote.rater, vote.view.number): vote for vote in self._votes()}
        return [
            Ballot(
                rater=vote.rater,
                pair=vote.view.pair,
                left=vote.view.left,
                answers=dict(vote.answers),
                seconds=vote.seconds,
                given=vote.given,
                repeat=vote.view.repeat,
            )
            for vote in last.values()
        ]

    def add_votes(self, votes: Iterable[StoredVote]) -> int:
        """Store votes of an export with their views and raters, all or none; returns how many were new.

        Raises:
            VoteRefused: The survey is closed, or something else has the id of a vote or view.
        """
        added = 0
        known = {vote.id: vote for vote in self._votes()}
        with self._reported(), self._engine.begin() as connection:
            raters = set(connection.scalars(self._of_survey(RATERS, RATERS.c.pseudonym)))
            views = {row.id: (row.rater, _view(row)) for row in connection.execute(self._of_survey(VIEWS))}
            places = {(rater, view.number): view.id for rater, view in views.values()}
            for vote in votes:
                if known.setdefault(vote.id, vote) is not vote:
                    if known[vote.id] != vote:
                        raise ConflictingVote(f"{vote.id}: another vote has this id")
                    continue
                if vote.rater not in raters:
                    raters.add(vote.rater)
                    connection.execute(insert(RATERS).values(survey=self.survey.id, pseudonym=vote.rater))
                place, shown = (vote.rater, vote.view.number), (vote.rater, vote.view)
                if vote.view.id not in views and place not in places:
                    views[vote.view.id], places[place] = shown, vote.view.id
                    connection.execute(
                        insert(VIEWS).values(survey=self.survey.id, rater=vote.rater, **vars(vote.view))
                    )
                if views.get(vote.view.id) != shown:
                    raise ConflictingVote(f"{vote.id}: the rater was shown another view there")
                self._insert(connection, vote)
                added += 1
        return added

    def dispose(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _insert(self, connection: Any, vote: StoredVote) -> None:
        """The insertion comes first: with it SQLite excludes other writers, so that the survey cannot be closed after
        the check and before the commit. PostgreSQL holds the survey's row for that."""
        connection.execute(
            insert(VOTES).values(
                survey=self.survey.id,
                id=vote.id,
                view=vote.view.id,
                answers=dict(vote.answers),
                seconds=vote.seconds,
                given=vote.given,
            )
        )
        closed = select(SURVEYS.c.closed).where(SURVEYS.c.id == self.survey.id).with_for_update(read=True)
        if connection.scalar(closed) is not None:
            raise SurveyClosed(f"{self.survey.id}: is closed and takes no more votes")
        of_view = (VOTES.c.survey == self.survey.id) & (VOTES.c.view == vote.view.id)
        if connection.scalar(select(func.count()).where(of_view)) > MAX_VOTES_PER_VIEW:
            raise TooManyVotes(
                f"{vote.view.id}: was answered {MAX_VOTES_PER_VIEW} times; its last answer stays"
            )

    def _check_same(self, vote: StoredVote) -> None:
        (stored,) = self._votes(VOTES.c.id == vote.id)
        if (stored.rater, stored.view, stored.answers) != (vote.rater, vote.view, vote.answers):
            raise ConflictingVote(f"{vote.id}: another vote has this id; draw a new one")

    def _rater(self, condition: Any) -> Rater | None:
        with self._engine.connect() as connection:
            row = connection.execute(self._of_survey(RATERS).where(condition)).one_or_none()
        return None if row is None else Rater(row.pseudonym, row.name, row.link)

    def _view(self, rater: str, number: int) -> View | None:
        return self._one_view((VIEWS.c.rater == rater) & (VIEWS.c.number == number))

    def _one_view(self, condition: Any) -> View | None:
        with self._engine.connect() as connection:
            row = connection.execute(self._of_survey(VIEWS).where(condition)).one_or_none()
        return None if row is None else _view(row)

    def _votes(self, *conditions: Any) -> list[StoredVote]:
        query = (
            select(VIEWS, VOTES.c.id.label("vote"), VOTES.c.answers, VOTES.c.seconds, VOTES.c.given)
            .join(VOTES, (VOTES.c.survey == VIEWS.c.survey) & (VOTES.c.view == VIEWS.c.id))
            .where(VIEWS.c.survey == self.survey.id, *conditions)
            .order_by(VOTES.c.number)
        )
        with self._reported(), self._engine.connect() as connection:
            return [
                StoredVote(row.rater, _view(row), row.vote, row.answers, row.seconds, row.given)
                for row in connection.execute(query)
            ]

    def _of_survey(self, table: Table, *columns: Any) -> Any:
        return select(*(columns or (table,))).where(table.c.survey == self.survey.id)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Failures of the database as StoreError, without the password of its URL."""
        try:
            yield
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise UserError(
                f"{_shown(self._place)}: is no database that can be used here: {error}"
            ) from error
        except (OSError, SQLAlchemyError) as error:
            reason = str(getattr(error, "orig", None) or error).strip()
            raise StoreError(f"{_shown(self._place)}: votes cannot be kept there: {reason}") from error


def _view(row: Any) -> View:
    return View(row.id, row.number, row.pair, row.left, row.repeat, row.shown)


def _shown(place: Path | str) -> str:
    return str(place).rpartition("@")[2]
