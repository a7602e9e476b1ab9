"""What a set of generated exemplars says of where each image came from and what it cost."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from corrector.exemplars import load_exemplars
from corrector.exemplars.provenance import Generation, dollars
from tests.support.collecting import PROMPT, collect
from tests.support.images_api import ImagesApiServer
from tests.support.pictures import drawn


def test_a_loaded_set_says_what_made_each_image_and_what_it_cost(
    api: ImagesApiServer, tmp_path: Path
) -> None:
    collect(api, tmp_path, "--count", "3")
    next(tmp_path.glob("*-0001-*")).rename(tmp_path / "renamed.png")
    drawn(64, 64, 1).save(tmp_path / "own.png")
    found = load_exemplars(tmp_path, resolution=64, name="people")
    made = {each.name: each.generation for each in found.sources}
    assert {each.place for each in found.sources} == {"people"}
    assert made.pop("own.png") is None
    assert made["renamed.png"] == Generation(
        model="world",
        host=urlsplit(api.url).netloc,
        prompt=PROMPT,
        revised_prompt=f"{PROMPT}, revised",
        request_id="req-0",
        dollars=0.04,
    )
    assert dollars(found.sources) == pytest.approx(3 * 0.04)


def test_a_damaged_journal_is_a_note_and_no_failure(api: ImagesApiServer, tmp_path: Path) -> None:
    collect(api, tmp_path, "--count", "3")
    path = tmp_path / ".generation/journal.jsonl"
    whole = path.read_text()
    lines = [*whole.splitlines(), "[]", '{"event": "ended", "request": 1, "images": "no", "paid_images": 1}']
    path.write_text("\n".join([*lines, '{"event": "ended", "requ']))
    found = load_exemplars(tmp_path, resolution=64)
    note = f".generation/journal.jsonl: 3 of {len(lines) + 1} lines are damaged; what they say is not known"
    assert note in found.notes
    assert all(each.generation for each in found.sources)
    path.write_text(whole.replace('"0.04"', '"NaN"'))
    assert not any(each.generation for each in load_exemplars(tmp_path, resolution=64).sources)
    path.unlink()
    path.mkdir()
    (note, *_) = load_exemplars(tmp_path, resolution=64).notes
    assert note.startswith(".generation/journal.jsonl: is a folder")
