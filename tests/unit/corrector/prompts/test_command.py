"""`python -m corrector.prompts`, as a person at a terminal sees it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from corrector.prompts import json_schema
from corrector.prompts.__main__ import main
from tests.support.batch_files import ENTRY, write


def test_check_sums_up_a_good_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    write(folder, "batch.yaml", "evaluation: {images: 8}\nprompts:\n" + ENTRY)

    assert main(["check", "batch.yaml"]) == 0

    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out == (
        "batch.yaml: 1 prompt on embedded, no mistakes\n"
        "  a-person-lying-on-the-grass  rank 16, 500 steps at 0.0001, 0 paraphrases, 1 guard prompts\n"
        "  note: evaluation.images is 8, gate.min_images 16: no correction can become a candidate\n"
    )


def test_check_reports_all_files_and_fails_if_one_is_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    write(folder, "wrong.yaml", "prompts:\n" + ENTRY + "    rank: 0\n    stepps: 3\n")
    write(folder, "right.yaml", "prompts:\n" + ENTRY)

    assert main(["check", "wrong.yaml", "right.yaml", "none.yaml"]) == 2

    printed = capsys.readouterr()
    assert printed.err == (
        "wrong.yaml:5: rank: expected a whole number from 1 to 1024, found 0\n"
        'wrong.yaml:6: stepps: unknown key; did you mean "steps"?\n'
        "wrong.yaml: 2 mistakes\n"
        "none.yaml: no such file\n"
        "none.yaml: 1 mistake\n"
    )
    assert printed.out.startswith("right.yaml: 1 prompt on embedded")


def test_the_schema_is_printed_or_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()

    assert main(["schema", "--out", str(folder / "schema.json")]) == 0
    assert json.loads((folder / "schema.json").read_text()) == json_schema()

    assert main(["schema", "--out", str(folder)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_module_runs_without_loading_a_model_library(folder: Path) -> None:
    path = write(folder, "batch.yaml", "prompts:\n" + ENTRY)
    program = (
        "import sys; from corrector.prompts.__main__ import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'diffusers', 'ray', 'mlflow'} & set(sys.modules); sys.exit(heavy or status)"
    )

    finished = subprocess.run(
        [sys.executable, "-c", program, "check", str(path)], capture_output=True, text=True, check=False
    )

    assert (finished.returncode, finished.stderr) == (0, "")
