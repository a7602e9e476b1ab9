"""`python -m corrector.exemplars.curation`."""

from pathlib import Path

from corrector.exemplars.curation import Decisions
from corrector.exemplars.curation.__main__ import main
from tests.support.commands import run
from tests.world.scenes import Scene, render


def test_it_prints_the_verdicts_and_writes_page_and_decisions(tmp_path: Path) -> None:
    folder, page, decisions = tmp_path / "set", tmp_path / "page.html", tmp_path / "decisions.json"
    folder.mkdir()
    for seed in range(4):
        render(Scene("dog", "lying", "grass"), seed).save(folder / f"{seed}.png")
    render(Scene("dog", "lying", "grass"), 4, size=16).save(folder / "small.png")
    given: list[str | Path] = [folder, "--resolution", "64"]
    first = run(main, *given, "--page", page, "--write-decisions", decisions)
    assert first.returncode == 1
    assert "not effective  small.png; size: is 16x16" in first.stdout
    assert "the set is not effective, 4 of 5 images used; number: 4 images" in first.stdout
    assert page.exists()
    assert len(Decisions.load(decisions).dropped) == 1
    second = run(main, *given, "--decisions", decisions)
    assert second.returncode == 0
    assert "(drop by curation)  small.png" in second.stdout


def test_mistakes_are_the_users(tmp_path: Path) -> None:
    for options in (["--judge", "nobody"], ["--judge", "nobody", "--prompt", "a dog"]):
        done = run(main, tmp_path, "--resolution", "64", *options)
        assert done.returncode == 2
        assert "judge" in done.stderr
    assert run(main, tmp_path / "nowhere", "--resolution", "64").returncode == 2
