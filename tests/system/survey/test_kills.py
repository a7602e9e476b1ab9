"""No vote that was acknowledged is lost when the survey's process is killed."""

import pytest

from tests.benchmarks import survey_kills


@pytest.mark.slow
def test_every_acknowledged_vote_is_there_once_after_ten_kills() -> None:
    assert survey_kills.main(["--kills", "10"]) == 0
