"""`python -m corrector.exemplars generate`: exemplars from an images API."""

import base64
import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from corrector.exemplars import load_exemplars
from corrector.exemplars.__main__ import main
from tests.benchmarks import collection_kills
from tests.support.collecting import PROMPT, arguments, collect, journal
from tests.support.commands import run
from tests.support.images_api import Fault, ImagesApiServer, images_api, png, refusal
from tests.support.paths import PROJECT
from tests.support.small_disk import SmallDisk

OTHER = "a photo of a person lying on the grass"
NOW = {"Retry-After": "0"}


def sold(api: ImagesApiServer) -> set[str]:
    return {digest for sale in api.sales for digest in sale.digests}


def stored(folder: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.png")}


def test_what_is_sold_is_stored_as_a_normal_exemplar_folder(api: ImagesApiServer, tmp_path: Path) -> None:
    result = collect(api, tmp_path, "--count", "6", "--variant", OTHER, "--parallel", "2")
    assert result.returncode == 0, result.stderr
    assert stored(tmp_path) == sold(api)
    assert sorted(sale.prompt for sale in api.sales) == [PROMPT] * 3 + [OTHER] * 3
    found = load_exemplars(tmp_path, resolution=64)
    assert len(found.training) + len(found.held_out) == 6
    assert not [note for note in found.notes if "held-out" not in note]


def test_every_image_is_recorded_with_its_origin(api: ImagesApiServer, tmp_path: Path) -> None:
    collect(api, tmp_path, "--count", "1", "--parameter", "quality=low")
    (asked,), (ended,) = journal(tmp_path, "asked"), journal(tmp_path, "ended")
    (image,) = ended["images"]
    assert (asked["prompt"], asked["model"], asked["quality"]) == (PROMPT, "world", "low")
    assert asked["id"] == api.requests[0]["id"] and api.requests[0]["quality"] == "low"
    assert ended["request_id"] == "req-0"
    assert image["revised_prompt"] == f"{PROMPT}, revised"
    assert {image["sha256"]} == stored(tmp_path) and (tmp_path / image["file"]).exists()


def test_nothing_is_sent_before_the_plan_is_confirmed(api: ImagesApiServer, tmp_path: Path) -> None:
    result = run(main, *arguments(api, tmp_path, "--count", "3"))
    assert result.returncode == 0
    assert "3 of 3 images to collect" in result.stdout and "cost: $0.12 at $0.04 an image" in result.stdout
    assert not api.requests


def test_a_finished_collection_buys_nothing_more(api: ImagesApiServer, tmp_path: Path) -> None:
    collect(api, tmp_path)
    next(tmp_path.glob("*.png")).unlink()  # a person may sort out bad images
    assert collect(api, tmp_path).returncode == 0
    assert len(api.requests) == 3


@pytest.mark.parametrize(
    ("options", "bought"), [(["--budget", "0.11"], 2), (["--max-images", "1"], 1), (["--budget", "0"], 0)]
)
def test_the_budget_is_never_exceeded(
    api: ImagesApiServer, tmp_path: Path, options: list[str], bought: int
) -> None:
    for _ in range(2):
        result = collect(api, tmp_path, "--parallel", "3", *options)
        assert result.returncode == 1
        assert "the budget allows no more" in result.stdout
        assert len(sold(api)) == bought


def test_a_refused_prompt_is_a_result_and_not_asked_again(api: ImagesApiServer, tmp_path: Path) -> None:
    api.faults.append(refusal(400, "content_policy_violation", "not this"))
    result = collect(api, tmp_path, "--variant", OTHER)
    assert result.returncode == 0
    assert "refused by content policy, not asked again: requests 1" in result.stdout
    assert [request["prompt"] for request in api.requests] == [PROMPT, OTHER, OTHER, OTHER]
    assert journal(tmp_path, "ended")[0]["detail"] == "status 400: not this"
    api.faults.append(refusal(400, "moderation_blocked"))
    assert collect(api, tmp_path, "--variant", OTHER, "--count", "4").returncode == 1
    assert len(api.requests) == 5, "every prompt was refused"


def test_retry_after_is_respected(api: ImagesApiServer, tmp_path: Path) -> None:
    api.faults.append(refusal(429, "rate_limit_exceeded", Retry_After="1"))
    assert collect(api, tmp_path, "--count", "1").returncode == 0
    assert api.requests[1]["at"] - api.requests[0]["at"] >= 1
    assert journal(tmp_path, "ended")[0]["paid_images"] == 0


def test_an_api_that_is_busy_for_long_ends_the_collection(api: ImagesApiServer, tmp_path: Path) -> None:
    api.faults.append(refusal(429, "rate_limit_exceeded", "slow down", Retry_After="3600"))
    result = collect(api, tmp_path)
    assert result.returncode == 2
    assert "slow down" in result.stderr and "asked again in 3600 s" in result.stderr
    assert len(api.requests) == 1


def test_an_account_without_money_is_not_waited_for(api: ImagesApiServer, tmp_path: Path) -> None:
    api.faults.append(refusal(429, "insufficient_quota", "pay", Retry_After="0"))
    result = collect(api, tmp_path)
    assert (result.returncode, len(api.requests)) == (2, 1)
    assert "pay" in result.stderr


def test_an_api_that_is_not_there_costs_nothing(api: ImagesApiServer, tmp_path: Path) -> None:
    result = collect(api, tmp_path, "--base-url", "http://127.0.0.1:9/v1", "--patience", "0.1")
    assert result.returncode == 2 and "cannot be reached" in result.stderr
    assert "spent: at most $0.00 " in result.stdout


def test_a_wrong_key_is_shown_nowhere(
    api: ImagesApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    result = collect(api, tmp_path)
    assert result.returncode == 2 and "wrong key: Bearer (key)" in result.stderr
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any("sk-wrong" in text for text in [result.stdout, result.stderr, *written])


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(500, NOW, b"sorry", sold=True), id="fails after it charged"),
        pytest.param(Fault(cut=40, sold=True), id="answer broken off"),
        pytest.param(Fault(silent=True, sold=True), id="no answer in time"),
        pytest.param(Fault(99, sold=True), id="not HTTP"),
    ],
)
def test_what_may_have_been_billed_counts_and_is_reported(
    api: ImagesApiServer, tmp_path: Path, fault: Fault
) -> None:
    api.faults.append(fault)
    result = collect(api, tmp_path, "--count", "1", "--timeout", "0.5")
    assert result.returncode == 1
    assert "failed, may have been billed: requests 1" in result.stdout
    assert "spent: at most $0.04 " in result.stdout and len(api.requests) == 1
    assert collect(api, tmp_path, "--count", "1", "--max-images", "2").returncode == 0


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(body=b"<html>"), id="HTML in place of JSON"),
        pytest.param(Fault(items=[]), id="no images"),
        pytest.param(Fault(items=["text"]), id="no objects"),
        pytest.param(Fault(items=[{}]), id="neither content nor URL"),
        pytest.param(Fault(items=[{"b64_json": "?"}]), id="no base64"),
        pytest.param(
            Fault(items=[{"b64_json": base64.b64encode(b"<html>").decode()}]), id="HTML in place of a picture"
        ),
        pytest.param(
            Fault(items=[{"b64_json": base64.b64encode(png(PROMPT, 0)[:200]).decode()}]), id="half a picture"
        ),
    ],
)
def test_an_answer_without_a_picture_is_kept_and_counts(
    api: ImagesApiServer, tmp_path: Path, fault: Fault
) -> None:
    api.faults.append(fault)
    result = collect(api, tmp_path, "--count", "1", "--max-images", "2")
    assert result.returncode == 0
    assert "unusable, kept in .generation/answers: requests 1" in result.stdout
    assert journal(tmp_path, "ended")[0]["paid_images"] == 1
    assert [path.name for path in (tmp_path / ".generation/answers").iterdir()] == ["0001"]
    assert len(stored(tmp_path)) == 1


def test_an_api_that_only_fails_is_not_paid_for_ever(api: ImagesApiServer, tmp_path: Path) -> None:
    api.faults.extend([Fault(503, NOW, b"sorry")] * 9)
    result = collect(api, tmp_path, "--count", "9")
    assert result.returncode == 2 and "5 requests in a row brought no image" in result.stderr
    assert len(api.requests) == 5


def test_fewer_images_and_another_size_are_stored_with_a_remark(api: ImagesApiServer, tmp_path: Path) -> None:
    one = base64.b64encode(png(PROMPT, 7, side=48)).decode()
    api.faults.append(Fault(items=[{"b64_json": one}]))
    result = collect(api, tmp_path, "--images-per-request", "2", "--max-images", "9")
    first = journal(tmp_path, "ended")[0]
    assert result.returncode == 0 and len(stored(tmp_path)) == 3
    assert (first["detail"], first["paid_images"]) == ("1 of 2 images", 2)
    assert (first["images"][0]["size"], first["images"][0]["remark"]) == ("48x48", "asked for 64x64")


def test_more_images_than_asked_for_are_all_stored(api: ImagesApiServer, tmp_path: Path) -> None:
    both = [{"b64_json": base64.b64encode(png(PROMPT, seed)).decode()} for seed in (1, 2)]
    api.faults.append(Fault(items=both))
    collect(api, tmp_path, "--count", "1")
    assert len(stored(tmp_path)) == 2
    assert journal(tmp_path, "ended")[0]["paid_images"] == 2


def test_images_are_fetched_from_urls_of_the_api(api: ImagesApiServer, tmp_path: Path) -> None:
    api.as_url = True
    api.files["/images/0-0"] = (302, {"Location": "/elsewhere", "Content-Type": "text/html"}, b"")
    api.files["/elsewhere"] = (200, {"Content-Type": "text/html"}, png(PROMPT, 1))
    assert collect(api, tmp_path).returncode == 0
    assert len(stored(tmp_path)) == 3


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://127.0.0.1:{other}/x", "private address"),
        ("http://[::ffff:10.0.0.1]/x", "private address"),
        ("http://169.254.169.254/latest/meta-data", "private address"),
        ("file:///etc/passwd", "not an http or https URL"),
        ("http://user:password@127.0.0.1/x", "not an http or https URL"),
        ("/images/0-0", "more than 3 redirects"),
        ("/missing", "status 404"),
    ],
)
def test_urls_that_lead_elsewhere_are_not_fetched(
    api: ImagesApiServer, tmp_path: Path, location: str, said: str
) -> None:
    api.as_url = True
    with images_api() as other:
        target = location.format(other=other.url.split(":")[2].removesuffix("/v1"))
        api.files["/images/0-0"] = (302, {"Location": target}, b"")
        collect(api, tmp_path, "--count", "1")
    (ended,) = journal(tmp_path, "ended")
    assert ended["outcome"] == "unusable" and said in ended["detail"]


def test_an_image_at_a_url_that_is_too_large_or_none_is_unusable(
    api: ImagesApiServer, tmp_path: Path
) -> None:
    api.as_url = True
    api.files["/images/0-0"] = (302, {"Location": "http://[/"}, b"")
    api.files["/images/1-0"] = (200, {"Content-Length": str(2**40)}, b"")
    assert collect(api, tmp_path, "--count", "1", "--max-images", "3").returncode == 0
    details = [ended["detail"] for ended in journal(tmp_path, "ended")]
    assert details[0] == "image 1: its URL: was redirected to what is no URL"
    assert details[1].startswith("image 1: its URL: the answer is larger than")


def test_an_image_that_cannot_be_fetched_now_is_fetched_later_and_not_bought_again(
    api: ImagesApiServer, tmp_path: Path
) -> None:
    api.as_url = True
    api.files["/images/0-0"] = (503, {}, b"")
    first = collect(api, tmp_path, "--count", "1")
    assert first.returncode == 2 and "its URL is kept" in first.stderr
    api.files["/images/0-0"] = (200, {}, png(PROMPT, 1))
    assert collect(api, tmp_path, "--count", "1").returncode == 0
    assert len(api.requests) == 1 and len(stored(tmp_path)) == 1


def test_a_request_in_flight_at_a_kill_counts_as_spent_and_is_asked_again_within_the_budget(
    api: ImagesApiServer, tmp_path: Path
) -> None:
    arrived = threading.Event()
    api.arrived = arrived.set
    api.faults.append(Fault(silent=True, sold=True))
    command = [sys.executable, "-m", "corrector.exemplars", *arguments(api, tmp_path), "--yes"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL) as process:
        assert arrived.wait(60)
        busy = collect(api, tmp_path)
        assert busy.returncode == 2 and "another collection works in this folder" in busy.stderr
        process.kill()
    result = collect(api, tmp_path)
    assert result.returncode == 1 and len(stored(tmp_path)) == 2
    assert "in flight when the process was killed, may have been billed: requests 1" in result.stdout
    assert collect(api, tmp_path, "--max-images", "4").returncode == 0
    assert len(sold(api)) == 4


def test_an_answer_that_was_received_before_a_kill_is_stored_and_not_bought_again(
    api: ImagesApiServer, tmp_path: Path
) -> None:
    collect(api, tmp_path, "--count", "1")
    path = tmp_path / ".generation/journal.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    (image,) = tmp_path.glob("*.png")
    item = {"b64_json": base64.b64encode(image.read_bytes()).decode()}
    image.unlink()
    path.write_text(
        "".join(whole[:-1]) + whole[-1][:20]
    )  # the process was killed while it wrote the last line
    (tmp_path / ".generation/answers/0001").write_text(
        '{"request_id": "req-0"}\n' + json.dumps({"data": [item]})
    )
    (tmp_path / ".generated-0001-1.png.1.ab").write_bytes(b"part")
    assert collect(api, tmp_path, "--count", "1").returncode == 0
    assert len(api.requests) == 1 and stored(tmp_path) == sold(api)
    assert {each.name for each in tmp_path.iterdir()} == {image.name, ".generation"}


def test_a_full_disk_loses_no_image(
    api: ImagesApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, spare = tmp_path / "exemplars", tmp_path / "spare"
    folder.mkdir()
    spare.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spare))
    with SmallDisk(folder, 2**20) as disk:
        collect(api, folder, "--count", "1")
        api.arrived = lambda: disk.fill(leaving=0)
        result = collect(api, folder, "--count", "2", "--size", "256x256")
        assert result.returncode == 2 and "No space left on device" in result.stderr
        (rescued,) = spare.rglob("0002")
        assert str(rescued) in result.stderr
        disk.free()
        (folder / ".generation/answers/0002").write_bytes(rescued.read_bytes())
        assert collect(api, folder, "--count", "2").returncode == 0
        assert stored(folder) == sold(api) and len(api.requests) == 2


def test_a_folder_of_another_prompt_or_with_a_damaged_journal_is_refused(
    api: ImagesApiServer, tmp_path: Path
) -> None:
    collect(api, tmp_path, "--count", "1")
    assert 'holds images of "a person lying' in collect(api, tmp_path, "--prompt", "a tree").stderr
    with (tmp_path / ".generation/journal.jsonl").open("a") as file:
        file.write("{}\n")
    result = collect(api, tmp_path)
    assert result.returncode == 2 and "journal.jsonl:4: is damaged" in result.stderr


def test_the_command_starts_without_torch() -> None:
    code = (
        "import sys; from corrector.exemplars.__main__ import main\n"
        "try: main(['generate', '--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--base-url", "ftp://host/v1"), ("--price", "-1"), ("--count", "0"), ("--parameter", "n=3")],
)
def test_options_that_make_no_sense_are_refused(
    api: ImagesApiServer, tmp_path: Path, option: str, value: str
) -> None:
    assert collect(api, tmp_path, option, value).returncode == 2
    assert not api.requests


@pytest.mark.slow
def test_a_collection_survives_kills() -> None:
    assert collection_kills.main(["--kills", "10"]) == 0
