"""`python -m corrector.exemplars`."""

from pathlib import Path

import pytest
from PIL import Image

from corrector.exemplars.__main__ import main
from tests.support.commands import run
from tests.support.pictures import content, drawn


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


def test_it_shows_either_way_to_make_squares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(content(drawn(48, 64, number)))
    digests = []
    for options, warning in (
        ([], "warning: the crop loses more than 20% of 8 of 8"),
        (["--fit", "pad"], "warning: bars fill"),
    ):
        assert main([str(tmp_path), "--resolution", "32", *options]) == 0
        printed = capsys.readouterr().out
        assert warning in printed
        digests.append(printed.splitlines()[-1])
    assert digests[0] != digests[1]


def test_a_folder_without_images_is_the_user_s_mistake(tmp_path: Path) -> None:
    result = run(main, tmp_path, "--resolution", "64")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("exemplars: no usable image in")


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
