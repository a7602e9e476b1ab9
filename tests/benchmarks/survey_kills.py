"""Ten raters vote while the survey's process is killed: `python -m tests.benchmarks.survey_kills [--kills 200]`.

The page is served by `python -m serving.survey`, a process of its own, which is killed (SIGKILL) at moments drawn from the
seed: so many milliseconds after it was ready, or after the first vote of its life was acknowledged. The raters vote over HTTP
as the page does: a vote without an acknowledgement is sent again. Then the process is started once more, and every vote in
hand is sent. If the raters answer everything before the last kill, a new survey follows. Printed: kills, votes that were
acknowledged, sent again, and stored. Exit status 1 where an acknowledged vote is missing, is there twice or differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from socket import socket
from typing import Any

import httpx2

from corrector.preference.links import Links, write_secret
from corrector.preference.store import VoteStore
from corrector.preference.survey import QUESTIONS
from corrector.preference.survey_folder import SURVEY_FILE
from corrector.preference.votes import chosen_side
from tests.support.paths import PROJECT
from tests.support.surveys import HttpRater, defined

RATERS = 10
PAIRS = 300
_SIDES = ("left", "right", "both bad")


@dataclass
class Voting:
    """What the raters know.

    Attributes:
        acknowledged: Bodies of votes by their ids, each as often as it was acknowledged.
        again: Votes that were sent more than once.
    """

    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    again: int = 0
    arrived: threading.Event = field(default_factory=threading.Event)
    last: threading.Event = field(default_factory=threading.Event)

    def rate(self, url: str, random: Random) -> None:
        """One rater, until everything is answered, or `last` is set and no vote is in hand."""
        rater = HttpRater(url)
        while not self.last.is_set():
            state = self._asked(rater, "view", {"browser": rater.browser})
            if state is None:
                continue
            if state["view"] is None:
                return
            answers = {question: random.choice(_SIDES) for question in QUESTIONS}
            body = rater.ballot(state["view"]["id"], answers)
            sent = 1
            while self._asked(rater, "votes", body) is None:
                sent += 1
            self.again += sent > 1
            self.acknowledged.append(body)
            self.arrived.set()

    def _asked(self, rater: HttpRater, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None where there is none at the moment."""
        try:
            answer = rater.post(path, body)
        except httpx2.HTTPError:
            self.last.wait(0.02)
            return None
        assert answer.status_code in (200, 503), answer.text
        return answer.json() if answer.status_code == 200 else None


@dataclass(frozen=True)
class Found:
    """A survey after its kills; numbers of votes."""

    kills: int
    acknowledged: int
    again: int
    stored: int
    missing: int
    twice: int
    different: int

    @property
    def is_right(self) -> bool:
        """Every vote that was acknowledged is stored once, as it was given; no other vote is stored."""
        return self.missing == self.twice == self.different == 0 and self.stored == self.acknowledged > 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="number of kills (200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and answers (0)")
    options = parser.parse_args(arguments)
    random, kills, right = Random(options.seed), 0, True
    while kills < options.kills:
        with tempfile.TemporaryDirectory() as folder:
            found = voted(Path(folder), random, options.kills - kills)
        kills += found.kills
        right = right and found.is_right
        print(
            f"{found.kills} kills: {found.acknowledged} votes acknowledged, {found.again} of them sent more than once, "
            f"{found.stored} stored; missing {found.missing}, twice {found.twice}, different {found.different}: "
            f"{'right' if found.is_right else 'WRONG'}",
            flush=True,
        )
    return 0 if right else 1


def voted(folder: Path, random: Random, kills: int) -> Found:
    """One survey whose process is killed up to `kills` times, then left to its end."""
    survey = defined(pairs=PAIRS)
    (folder / SURVEY_FILE).write_text(survey.model_dump_json())
    write_secret(folder)
    links, store, port = Links(folder, survey.id), VoteStore(folder, survey), _free_port()
    voting = Voting()
    raters = []
    for number in range(RATERS):
        link = store.add_rater(f"rater {number}").link
        assert link is not None
        url = f"http://127.0.0.1:{port}/{links.token(link)}"
        raters.append(threading.Thread(target=voting.rate, args=(url, Random(random.random()))))
    for rater in raters:
        rater.start()
    done = 0
    while done < kills and any(rater.is_alive() for rater in raters):
        _kill(folder, port, voting, random)
        done += 1
    voting.last.set()
    with _served(folder, port):
        for rater in raters:
            rater.join()
    found = _found(store, voting, done)
    store.dispose()
    return found


def _kill(folder: Path, port: int, voting: Voting, random: Random) -> None:
    """Start the process and kill it at a drawn moment."""
    voting.arrived.clear()
    after_vote = random.random() < 0.8
    delay = random.uniform(0.0, 0.3)
    with _served(folder, port):
        if after_vote:
            voting.arrived.wait(60)
        threading.Event().wait(delay)


@contextmanager
def _served(folder: Path, port: int) -> Iterator[None]:
    """The process, from when it is ready until it is killed."""
    command = [sys.executable, "-m", "serving.survey", str(folder), "--port", str(port)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert "ready" in ready, f"exit status {process.wait()}"
            yield
        finally:
            process.kill()


def _found(store: VoteStore, voting: Voting, kills: int) -> Found:
    stored = {vote.id: vote for vote in store.votes()}
    of_view = Counter(vote.view.id for vote in stored.values())
    missing = different = 0
    for body in voting.acknowledged:
        vote = stored.get(body["id"])
        if vote is None:
            missing += 1
            continue
        sides = {name: chosen_side(choice, vote.view.left) for name, choice in vote.answers.items()}
        different += (vote.view.id, sides) != (body["view"], body["answers"])
    return Found(
        kills=kills,
        acknowledged=len(voting.acknowledged),
        again=voting.again,
        stored=len(store.votes()),
        missing=missing,
        twice=sum(count > 1 for count in of_view.values()),
        different=different,
    )


def _free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
