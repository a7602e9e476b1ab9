"""`python -m corrector.prompts`, as a person at a terminal sees it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from corrector.prompts import json_schema
from corrector.prompts.__main__ import main
from tests.support.batch_files import ENTRY, write
from tests.support.paths import EXAMPLES


@pytest.fixture(autouse=True)
def images(folder: Path) -> None:
    """Exemplars that can be read, since `check` reads them all."""
    shutil.rmtree(folder / "exemplars" / "lying")
    shutil.copytree(EXAMPLES / "exemplars" / "person-lying-on-the-grass", folder / "exemplars" / "lying")


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
        "  a-person-lying-on-the-grass  rank 16, 500 steps at 0.0001, 12 + 12 exemplars, "
        "0 paraphrases, 1 guard prompts\n"
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


def test_check_reads_base_and_exemplars_and_prints_their_notes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    write(folder, "right.yaml", "prompts:\n" + ENTRY)
    (folder / "exemplars" / "lying" / "notes.txt").write_text("a text")
    write(folder, "nowhere.yaml", "base: nowhere\nprompts:\n" + ENTRY)

    assert main(["check", "nowhere.yaml", "right.yaml"]) == 2

    printed = capsys.readouterr()
    assert printed.err.startswith('base "nowhere": nowhere has no model_index.json')
    assert printed.err.endswith("nowhere.yaml: 1 mistake\n")
    assert "  note: a-person-lying-on-the-grass: not images, ignored: notes.txt\n" in printed.out

    for path in (folder / "exemplars" / "lying").glob("*.png"):
        path.write_bytes(path.read_bytes()[:100])
    assert main(["check", "right.yaml"]) == 2
    assert capsys.readouterr().err.startswith('right.yaml:3: exemplars: no usable image in "exemplars/lying"')


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
        "heavy = {'torch', 'scipy', 'diffusers', 'ray', 'mlflow'} & set(sys.modules); sys.exit(heavy or status)"
    )

    finished = subprocess.run(
        [sys.executable, "-c", program, "check", str(path)], capture_output=True, text=True, check=False
    )

    assert (finished.returncode, finished.stderr) == (0, "")
