"""`python -m serving.survey`: mistakes are named before anything is served."""

from __future__ import annotations

import socket
from pathlib import Path

from serving.survey.__main__ import main
from tests.support.commands import run
from tests.support.surveys import small_survey


def test_a_folder_without_a_survey_and_a_port_that_is_taken_are_named(tmp_path: Path) -> None:
    nowhere = run(main, tmp_path / "nowhere")
    assert nowhere.returncode == 2 and "nowhere: no survey.json" in nowhere.stderr
    small_survey(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run(main, tmp_path / "survey", "--port", str(port))
    assert refused.returncode == 2 and f"port {port} of 127.0.0.1: Address already in use" in refused.stderr
    (tmp_path / "survey" / "secret").unlink()
    unsigned = run(main, tmp_path / "survey")
    assert unsigned.returncode == 2 and "no secret for links" in unsigned.stderr
