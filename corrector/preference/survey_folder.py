"""The folder of a survey.

survey.json      Survey
images/ID.png    images, under random names
secret           signs links, see `links`
votes.sqlite     the database, unless another is named
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from corrector.errors import UserError
from corrector.preference.store import VoteStore
from corrector.preference.survey import Survey
from corrector.settings import Settings

SURVEY_FILE = "survey.json"
IMAGES_FOLDER = "images"


def read_survey(folder: Path) -> Survey:
    """The survey of a folder.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    path = folder / SURVEY_FILE
    try:
        return Survey.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no {SURVEY_FILE}; make a survey with `python -m corrector.preference make`"
        ) from None
    except (OSError, ValidationError) as error:
        raise UserError(f"{path}: is no survey: {error}") from error


@contextmanager
def open_survey(folder: Path, database: str | None = None) -> Iterator[tuple[Survey, VoteStore]]:
    """The survey of a folder and its votes.

    Args:
        database: SQLAlchemy URL; None: CORRECTOR_DATABASE, otherwise a SQLite file in the folder.

    Raises:
        UserError: There is no survey, or its database cannot be used.
    """
    survey = read_survey(folder)
    store = VoteStore(database or Settings.from_environment().database or folder, survey)
    try:
        yield survey, store
    finally:
        store.dispose()
