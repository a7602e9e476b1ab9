"""`python -m corrector.exemplars`."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from corrector.exemplars.__main__ import main
from tests.exemplars.pictures import content, drawn


def exemplars(folder: Path, count: int = 8) -> None:
    for number in range(count):
        (folder / f"{number}.png").write_bytes(content(drawn(64, 64, number)))


def test_it_prints_the_split_and_the_notes_and_draws_the_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exemplars(tmp_path)
    (tmp_path / "empty.png").touch()
    sheet = tmp_path / "sheet.png"
    assert main([str(tmp_path), "--resolution", "32", "--sheet", str(sheet)]) == 0
    printed = capsys.readouterr().out
    assert "training (4)" in printed
    assert "held out (4)" in printed
    assert all(f"{number}.png" in printed for number in range(8))
    assert "notes (1)\n  empty.png: is empty (0 bytes); copy it again or remove it\n" in printed
    with Image.open(sheet) as image:
        assert image.width > 6 * 192


def test_as_a_module_it_tells_the_user_without_a_stack_trace(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "corrector.exemplars", str(tmp_path), "--resolution", "64"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("exemplars: no usable image in")
    assert "Traceback" not in result.stderr


def test_a_sheet_that_cannot_be_written_is_the_users_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exemplars(tmp_path)
    for target in (tmp_path / "nowhere" / "sheet.png", tmp_path / "sheet.unknown"):
        assert main([str(tmp_path), "--resolution", "16", "--sheet", str(target)]) == 2
        assert "sheet: cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--resolution", "0"], ["--resolution", "64", "--held-out-fraction", "1"], []]
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path), *options])
    assert caught.value.code == 2
