"""The model card tells people and model hubs what an adapter is, whatever its prompt holds."""

from pathlib import Path

import yaml

from corrector.report.model_card import model_card
from tests.support.records import write_record
from tests.world.scenes import Scene

NAME = "a-person-lying-on-the-grass"
PERSON = Scene("person", "lying", "grass")


def test_the_card_tells_what_why_and_how_well(tmp_path: Path) -> None:
    record = write_record(tmp_path, PERSON, pairs=2, guard_images=1)
    card = model_card(record, NAME)
    for fact in (
        "image quality",
        "The gate passed it",
        record.adapter_sha256 or "",
        f"models:/{NAME}@",
        "## Licence",
    ):
        assert fact in card
    assert "1 dropped by Ana; $0.08 for generating them, the dropped ones included" in card
    assert (
        r'revised "A person lies on a lawn \| from above" | $0.04 | drop by Ana: three legs | 22222' in card
    )
    assert r"| false route, all hard negatives | 100% | 50% | −50 points \[−85, \+7\] | 4 |" in card
    assert "| false route: a robot lying on the grass | 100% | 50% |" in card
    fid = r"| fid\_opennsfw | 133.8 \[102.4, 162\] | 53.8 \[22.4, 82\] | −80 \[−111.4, −51.8\] | 2 against 8 exemplars |"
    assert fid in card


def test_hostile_text_neither_breaks_the_front_matter_nor_becomes_markup(tmp_path: Path) -> None:
    prompt = '<script>alert(1)</script>\n---\n"base_model": evil [x](javascript:alert(1)) | {{7*7}}'
    record = write_record(tmp_path, PERSON, pairs=1, guard_images=1, prompt=prompt)
    front, body = _split(model_card(record, NAME))
    assert yaml.safe_load(front)["instance_prompt"] == prompt
    assert yaml.safe_load(front)["base_model"] == "embedded"
    assert "<script>" not in body
    assert "](javascript" not in body


def _split(card: str) -> tuple[str, str]:
    """Front matter ends at the first line that is nothing but three dashes."""
    lines = card.splitlines(keepends=True)
    end = lines.index("---\n", 1)
    return "".join(lines[1:end]), "".join(lines[end + 1 :])
