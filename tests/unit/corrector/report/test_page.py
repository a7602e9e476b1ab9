"""The page holds the whole evidence, refers to nothing outside, and shows hostile text as text."""

import itertools
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from corrector.evaluation.comparison import NegativeSamples
from corrector.exemplars.provenance import ExemplarSource
from corrector.record.correction_record import CorrectionRecord
from corrector.report import write_report
from corrector.report.__main__ import main
from corrector.report.prompts import Budget
from tests.support.records import SHOWN, write_record
from tests.world.scenes import Scene

VOID = {"meta", "img", "br", "line", "polyline", "circle", "input", "link", "hr"}


class Page(HTMLParser):
    """A parsed page: its elements with attributes, its text, and whether every element was closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attributes}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text = " ".join([*self.text.split(), *data.split()])

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with prompts of every status; read only."""
    folder = tmp_path_factory.mktemp("run")
    for scene, status in SHOWN:
        write_record(
            folder / f"{scene.subject}-{scene.place}" / "record", scene, status, pairs=8, guard_images=2
        )
    return folder


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("page") / "report.html"
    records = [(path.parent, CorrectionRecord.load(path.parent)) for path in sorted(run.rglob("record.json"))]
    adapters = {"a-person-lying-on-the-grass": "a-person-lying-on-the-grass version 7 (candidate)"}
    return Page(
        write_report(records, path, title="Nightly", job={"batch": "people.yaml", "adapters": adapters})
    )


def test_it_refers_to_nothing_outside_and_runs_nothing(page: Page) -> None:
    names = Counter(tag for tag, _ in page.elements)
    assert not {"script", "link", "iframe", "object", "form"} & set(names)
    for tag, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "action", "srcset"):
            if key in attributes:
                assert attributes[key].startswith("data:image/webp;base64," if tag == "img" else "#")


def test_links_lead_to_their_prompts(page: Page) -> None:
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = {attributes["href"][1:] for tag, attributes in page.elements if tag == "a"}
    assert targets == {f"prompt-{number}" for number in range(1, 5)}
    assert targets <= set(identifiers)
    named = {
        attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes
    }
    assert named <= set(identifiers)


def test_every_image_says_what_it_is(page: Page) -> None:
    texts = [attributes["alt"] for tag, attributes in page.elements if tag == "img"]
    assert all(texts)
    assert "Before, base model, a person lying on the grass, seed 1000" in texts
    assert "After, corrected model, a person lying on the grass, seed 1000" in texts
    plots = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert plots
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in plots)


def test_headings_descend_without_a_gap(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def test_every_status_is_explained(page: Page) -> None:
    assert "2 of 4 corrected" in page.text
    assert "1 of 4 rejected by the gate" in page.text
    assert "1 of 4 failed" in page.text
    assert "Could not be corrected. training diverged: the loss was not finite at step 37" in page.text
    assert re.search(r"Not approved: \d of \d+ checks did not pass", page.text)
    assert "waits for a reviewer" in page.text
    assert "a-person-lying-on-the-grass version 7 (candidate)" in page.text
    assert "people.yaml" in page.text


def test_hard_negatives_are_shown_with_what_a_false_route_does_to_them(page: Page) -> None:
    assert page.text.count("Hard negatives: what a false route would do") == 3, "of all that were sampled"
    assert "“a robot lying on the grass” recognised 100% before, 50% after" in page.text
    assert (
        "Of 4 images over 2 prompts 100% are recognised as their prompt's before and 50% after: "
        "−50 points [−85, +7]. Reported, gates nothing." in page.text
    )
    assert page.text.count("100% → 50% ") == 3
    assert page.text.count("false route, all hard negatives") == 3
    assert page.text.count("−50 points [−85, +7]") == 6, "above the images and in the scorecard"
    texts = [attributes["alt"] for tag, attributes in page.elements if tag == "img"]
    assert "After, corrected model, a robot lying on the grass, seed 51" in texts


def test_exemplars_have_their_source_cost_and_decision(page: Page) -> None:
    assert (
        page.text.count("2 images: 1 generated by gpt-image-1 at api.openai.com, 1 from the folder exemp") > 1
    )
    assert 'generated by gpt-image-1 at api.openai.com, request req-7, prompt "a person lying' in page.text
    assert "keep by Bea" in page.text
    assert "drop by Ana: three legs" in page.text


def test_a_record_from_before_hard_negatives_were_drawn_says_nothing_of_them(tmp_path: Path) -> None:
    record = write_record(tmp_path / "r", Scene("dog", "sitting", "beach"), pairs=2, guard_images=1)
    assert record.scorecard is not None
    card = record.scorecard.model_copy(update={"false_route": None})
    earlier = record.model_copy(update={"scorecard": card, "hard_negatives": (), "exemplars": ()})
    path = write_report([(tmp_path / "r", earlier)], tmp_path / "report.html", title="Earlier", job={})
    text = Page(path).text
    assert "Hard negatives" not in text
    assert "false route" not in text
    assert "Sources of the exemplars" not in text


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    attack = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}</style>"
    write_record(
        tmp_path / "r",
        Scene("dog", "sitting", "beach"),
        pairs=2,
        guard_images=1,
        prompt=attack,
        name=attack,
        sampled_prompts=(attack, attack),
        hard_negatives=(NegativeSamples(prompt=attack, difference="noun", seeds=(1, 2)),),
        entry={attack: attack},
        lineage={attack: {attack: attack}},
        exemplars=(ExemplarSource(name=attack, sha256=attack, kind="folder", place=attack),),
        base_name=attack,
        seconds={attack: 1.0},
    )
    write_record(tmp_path / "f", Scene("dog", "sitting", "beach"), "failed", prompt=attack, error=attack)
    records = [(tmp_path / name, CorrectionRecord.load(tmp_path / name)) for name in "rf"]
    page = Page(write_report(records, tmp_path / "report.html", title=attack, job={attack: attack}))
    assert page.count("script") == 0
    assert page.count("style") == 1
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert page.text.count("{{ 7 * 7 }}") > 10


def test_photographs_are_reduced_and_not_pixelated(tmp_path: Path) -> None:
    record = write_record(tmp_path / "r", Scene("dog", "sitting", "beach"), size=520, pairs=1, guard_images=1)
    path = write_report([(tmp_path / "r", record)], tmp_path / "report.html", title="Photographs", job={})
    images = [attributes for tag, attributes in Page(path).elements if tag == "img"]
    assert max(int(image["width"]) for image in images) == 512
    assert not [image for image in images if "pixelated" in image["class"]]
    assert path.stat().st_size < len(images) * 40_000


def test_many_prompts_show_a_sample_of_each_and_say_so(tmp_path: Path) -> None:
    record = write_record(tmp_path / "r", Scene("dog", "sitting", "beach"), pairs=17, guard_images=1, size=16)
    path = write_report([(tmp_path / "r", record)] * 7, tmp_path / "report.html", title="Many", job={})
    assert Page(path).text.count("16 of 17 pairs") == 7


def test_the_most_that_a_page_holds_grows_far_slower_than_its_prompts() -> None:
    images = [count * Budget.of(count).pairs for count in (1, 6, 30, 200)]
    assert images == [32, 192, 480, 1200]


def test_the_command_writes_the_same_page_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), "--out", str(tmp_path / "again.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "again.html")
    assert "2 of 4 corrected" in Page(tmp_path / "again.html").text
    assert not list(tmp_path.glob(".*"))


def test_the_command_takes_order_and_versions_from_the_result(tmp_path: Path) -> None:
    scenes = [Scene("dog", "sitting", place) for place in ("beach", "grass", "snow")]
    records = [write_record(tmp_path / "prompts" / scene.place, scene, "failed") for scene in scenes]
    prompts: list[dict[str, object]] = [{"name": r.name, "work_id": r.work_id} for r in reversed(records)]
    prompts[0]["adapter"] = {
        "name": "dog",
        "version": "3",
        "aliases": ["champion"],
        "sha256": "0",
        "run_id": "1",
    }
    result = {"run": "nightly", "batch": "dogs.yaml", "base": "embedded", "prompts": prompts}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert main([str(tmp_path)]) == 0
    text = Page(tmp_path / "report.html").text
    places = [text.index(f"a dog sitting on the {place}") for place in ("snow", "grass", "beach")]
    assert places == sorted(places)
    assert "Corrections: nightly" in text
    assert "dogs.yaml" in text
    assert "dog version 3 (champion)" in text


@pytest.mark.parametrize("content", [None, "{"])
def test_a_folder_without_readable_records_is_a_users_error(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "record.json").write_text(content)
    assert main([str(tmp_path)]) == 2
    assert "record.json" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
