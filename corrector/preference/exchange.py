"""Export and import of votes as JSON lines, and export as tasks of Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corrector.errors import UserError
from corrector.files import write_atomically
from corrector.preference.store import VoteStore
from corrector.preference.survey import QUESTIONS, Arm, Ballot, Choice, Survey
from corrector.preference.survey_folder import IMAGES_FOLDER
from corrector.preference.votes import StoredVote, View, VoteRefused, chosen_side

_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class VoteLine(BaseModel):
    """A line of an export: a vote, and the view that it is about. Names and links of raters are not exported."""

    model_config = ConfigDict(extra="forbid")

    survey: str
    rater: _Id
    number: int = Field(ge=0)
    view: _Id
    pair: _Id
    left: Arm
    repeat: bool
    shown: _Time
    vote: str = Field(pattern=r"^[0-9a-f]{32}$")
    answers: dict[str, Choice]
    seconds: _Time
    given: _Time

    @classmethod
    def of(cls, survey: str, vote: StoredVote) -> VoteLine:
        view = vote.view
        return cls(
            survey=survey,
            rater=vote.rater,
            number=view.number,
            view=view.id,
            pair=view.pair,
            left=view.left,
            repeat=view.repeat,
            shown=view.shown,
            vote=vote.id,
            answers=dict(vote.answers),
            seconds=vote.seconds,
            given=vote.given,
        )

    def stored(self) -> StoredVote:
        view = View(self.view, self.number, self.pair, self.left, self.repeat, self.shown)
        return StoredVote(self.rater, view, self.vote, self.answers, self.seconds, self.given)


def export_votes(store: VoteStore, path: Path) -> int:
    """Write all votes, in the order in which they arrived, as lines of JSON; returns how many there are.

    Raises:
        UserError: The file cannot be written, or the database fails.
    """
    lines = [VoteLine.of(store.survey.id, vote).model_dump_json() + "\n" for vote in store.votes()]
    _write(path, "".join(lines))
    return len(lines)


def import_votes(store: VoteStore, path: Path) -> int:
    """Store the votes of an export, all or none; returns how many were new.

    Raises:
        UserError: The file cannot be read, a line is no vote on this survey, or the survey is closed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    votes = [
        _checked(line, store.survey, f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    try:
        return store.add_votes(votes)
    except VoteRefused as error:
        raise UserError(f"{path}: {error}; nothing was imported") from error


def export_label_studio(survey: Survey, ballots: list[Ballot], path: Path) -> Path:
    """Write the pairs as tasks of Label Studio, with the raters' answers as annotations, and beside them its labelling
    configuration; returns the configuration's path.

    Sides are drawn from the survey's seed. Image paths are relative to Label Studio's local storage, which must be the
    survey's folder.

    Raises:
        UserError: A file cannot be written.
    """
    random = Random(survey.seed)
    of_pair: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        of_pair.setdefault(ballot.pair, []).append(ballot)
    tasks: list[dict[str, Any]] = []
    for pair in survey.pairs:
        left: Arm = random.choice(("a", "b"))
        images = (pair.a, pair.b) if left == "a" else (pair.b, pair.a)
        shown = {
            side: f"/data/local-files/?d={IMAGES_FOLDER}/{image}.png"
            for side, image in zip(("left", "right"), images, strict=True)
        }
        tasks.append(
            {
                "data": {"pair": pair.id, "prompt": pair.prompt, **shown},
                "annotations": [_annotation(ballot, left) for ballot in of_pair.get(pair.id, ())],
            }
        )
    _write(path, json.dumps(tasks, indent=2, ensure_ascii=False) + "\n")
    return _write(path.with_suffix(".xml"), _configuration(survey))


def _annotation(ballot: Ballot, left: Arm) -> dict[str, Any]:
    return {
        "lead_time": ballot.seconds,
        "result": [
            {
                "from_name": question,
                "to_name": "left",
                "type": "choices",
                "value": {"choices": [chosen_side(choice, left)]},
            }
            for question, choice in ballot.answers.items()
        ],
    }


def _configuration(survey: Survey) -> str:
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    images = "".join(f'    <Image name="{side}" value="${side}"/>\n' for side in sides)
    choices = "".join(
        f"  <Header value={quoteattr(QUESTIONS[question])}/>\n"
        f'  <Choices name="{question}" toName="left" choice="single-radio" showInline="true" required="true">\n'
        + "".join(f'    <Choice value="{side}"/>\n' for side in (*sides, "both bad"))
        + "  </Choices>\n"
        for question in survey.questions
    )
    return (
        '<View>\n  <Text name="description" value="$prompt"/>\n'
        '  <View style="display: grid; grid-template-columns: 1fr 1fr; gap: 8px">\n'
        f"{images}  </View>\n{choices}</View>\n"
    )


def _checked(line: str, survey: Survey, place: str) -> StoredVote:
    try:
        found = VoteLine.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the line"
        raise UserError(f"{place}: {field}: {first['msg']}; expected a line of an export") from None
    if found.survey != survey.id:
        raise UserError(f"{place}: is of the survey {found.survey!r}, not {survey.id!r}")
    if found.pair not in {pair.id for pair in survey.pairs}:
        raise UserError(f"{place}: {survey.id} has no pair {found.pair}")
    if set(found.answers) != set(survey.questions):
        raise UserError(f"{place}: answers {sorted(found.answers)}; asked is {sorted(survey.questions)}")
    return found.stored()


def _write(path: Path, text: str) -> Path:
    try:
        return write_atomically(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
