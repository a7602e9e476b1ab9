"""Runs on S3: nodes with disks of their own see the same files, whole, and go on where another stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from botocore.httpsession import URLLib3Session

from corrector import s3 as corrector_s3
from corrector.base import ContentCache, resolve_base
from corrector.drawing import BaseImages
from corrector.errors import UserError
from corrector.loaded_base import Base
from corrector.prompts import GateThresholds
from corrector.record.correction_record import CorrectionRecord
from corrector.storage import Storage
from jobs.correction.scoring import ScoringSettings, score_prompt
from jobs.lanes.queue import PromptQueue
from tests.support.lanes import FEW_IMAGES, LocalClient, curve, prompt_tasks, run_lane


class Disks:
    """The disks of several nodes, of which this process uses one at a time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch

    def use(self, node: str) -> None:
        self._monkeypatch.setenv("CORRECTOR_CACHE", str(self._folder / node))

    def files(self, node: str) -> set[str]:
        """The names of the files on a node's disk, without those of the content cache."""
        files = (path for path in (self._folder / node).rglob("*") if path.is_file())
        return {path.name for path in files if "cache" not in path.parts}


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    return Disks(tmp_path / "disks", monkeypatch)


@pytest.fixture
def storage(bucket: str) -> Storage:
    return Storage.of(f"s3://{bucket}/runs/")


def test_a_file_is_what_the_last_node_wrote(storage: Storage, disks: Disks) -> None:
    file = storage.file("people/result.json")
    disks.use("first")
    assert file.read() is None
    file.write("old")
    disks.use("second")
    assert file.read() == b"old"
    file.write("new")
    disks.use("first")
    assert file.read() == b"new"
    file.remove()
    disks.use("second")
    assert not file.exists()
    assert file.read() is None
    assert disks.files("second") == set()


def test_a_folder_is_replaced_whole_and_renamed(storage: Storage, disks: Disks) -> None:
    sampled = storage.folder("person/sampled", marker="sampled.json")
    record = storage.folder("person/record", marker="record.json")

    disks.use("lane")
    (sampled.path / "images").mkdir(parents=True)
    for name in ("images/é 0.png", "record.json", "sampled.json"):
        (sampled.path / name).write_text(name)
    sampled.store()
    sampled.forget()
    assert disks.files("lane") == set()

    disks.use("scorer")
    assert sampled.fetch()
    assert not record.fetch()
    sampled.rename(record, without=["sampled.json"])
    assert not sampled.exists()

    disks.use("driver")
    assert record.fetch()
    written = {path.relative_to(record.path).as_posix() for path in record.path.rglob("*") if path.is_file()}
    assert written == {"images/é 0.png", "record.json"}
    stored = (record.path / "record.json").stat().st_ino
    assert record.fetch()
    assert (record.path / "record.json").stat().st_ino == stored, "an unchanged folder was fetched again"


def test_a_damaged_folder_is_named(storage: Storage, disks: Disks, tmp_path: Path) -> None:
    disks.use("node")
    (tmp_path / "half.tar").write_bytes(b"half")
    corrector_s3.upload(tmp_path / "half.tar", f"{storage.root}/record.tar")
    with pytest.raises(UserError, match=r"record\.tar: is damaged"):
        storage.folder("record", marker="record.json").fetch()


def test_what_one_node_caches_another_finds(storage: Storage, disks: Disks) -> None:
    disks.use("first")
    ContentCache(storage).put("text", {"x": torch.ones(2)})
    disks.use("second")
    found = ContentCache(storage).get("text")
    assert found is not None
    assert torch.equal(found["x"], torch.ones(2))


def test_a_damaged_copy_is_fetched_again_and_a_damaged_object_removed(
    storage: Storage, disks: Disks, tmp_path: Path
) -> None:
    disks.use("node")
    cache = ContentCache(storage)
    cache.put("text", {"x": torch.ones(2)})
    copy = next(tmp_path.rglob("text.tensors"))
    copy.write_bytes(copy.read_bytes()[:-1])
    found = cache.get("text")
    assert found is not None and torch.equal(found["x"], torch.ones(2))

    copy.write_bytes(copy.read_bytes()[:-1])
    entry = storage.file("te/text.tensors")
    entry.store()
    assert cache.get("text") is None
    assert not entry.exists()


def test_the_bases_images_of_a_look_cost_as_many_requests_as_one_image(
    storage: Storage, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks.use("first")
    spec, look = resolve_base("embedded"), tuple((("a dog", "a cat")[seed % 2], seed) for seed in range(8))
    drawn = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    sent: list[str] = []
    send = URLLib3Session.send

    def counted(self: URLLib3Session, request: Any) -> Any:
        sent.append(request.method)
        return send(self, request)

    monkeypatch.setattr(URLLib3Session, "send", counted)

    def images() -> BaseImages:
        return BaseImages(Base(spec, device="cpu", cache=ContentCache(storage)), FEW_IMAGES, 64)

    assert images().get(look) is None
    images().put(look, drawn)
    assert sent == ["HEAD", "PUT"]
    disks.use("second")
    sent.clear()
    found = images().get(look)
    assert found is not None and torch.equal(found, drawn)
    assert sent == ["HEAD", "HEAD", "GET"]
    images().get(look)
    assert len(sent) == 3, "the node has a copy"


@pytest.mark.parametrize("url", ["s3://", "s3:///runs", "s3://bucket/a/../../b"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError):
        Storage.of(url)


def test_a_lane_on_another_node_goes_on_where_a_killed_one_was(
    storage: Storage, disks: Disks, tmp_path: Path, small_sd3: Path
) -> None:
    spec = resolve_base(str(small_sd3))
    (undisturbed,) = prompt_tasks(tmp_path, spec, ("person",))
    run_lane(tmp_path, spec, LocalClient(PromptQueue([undisturbed])), slots=1)

    disks.use("driver")
    (task,) = prompt_tasks(storage, spec, ("person",))
    disks.use("first")
    with pytest.raises(KeyboardInterrupt):
        run_lane(storage, spec, LocalClient(PromptQueue([task]), die_after=3), slots=1)
    assert task.folder.checkpoint.exists()
    disks.use("second")
    run_lane(storage, spec, LocalClient(PromptQueue([task])), slots=1)
    assert not task.folder.checkpoint.exists()
    assert disks.files("second") == set()

    disks.use("scorer")
    assert task.folder.sampled.fetch()
    assert curve(task) == pytest.approx(curve(undisturbed), abs=1e-6)
    score_prompt(task, ScoringSettings(spec, FEW_IMAGES, GateThresholds(), "abc"))
    assert disks.files("scorer") == set()

    disks.use("driver")
    assert task.folder.record.fetch()
    assert CorrectionRecord.load(task.folder.record.path).status == "rejected"


def test_a_server_that_is_gone_costs_a_checkpoint_and_not_the_lane(
    storage: Storage, disks: Disks, small_sd3: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    spec = resolve_base(str(small_sd3))
    disks.use("node")
    (task,) = prompt_tasks(storage, spec, ("person",))
    refused = UserError("s3 at somewhere: no answer after 4 attempts")
    upload, failures = corrector_s3.upload, [refused, refused]

    def fail_twice(path: Path, url: str) -> None:
        if failures:
            raise failures.pop()
        upload(path, url)

    monkeypatch.setattr(corrector_s3, "upload", fail_twice)
    run_lane(storage, spec, LocalClient(PromptQueue([task])), slots=1)
    assert not failures
    assert task.folder.sampled.exists()
    assert "a checkpoint was not stored: s3 at somewhere" in caplog.text


def test_a_checkpoint_that_cannot_be_read_now_ends_the_lane_and_is_kept(
    storage: Storage, disks: Disks, small_sd3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = resolve_base(str(small_sd3))
    disks.use("node")
    (task,) = prompt_tasks(storage, spec, ("person",))
    with pytest.raises(KeyboardInterrupt):
        run_lane(storage, spec, LocalClient(PromptQueue([task]), die_after=2), slots=1)
    stored = corrector_s3.etag(task.folder.checkpoint.url)
    etag = corrector_s3.etag

    def refuse(url: str) -> str | None:
        if url == task.folder.checkpoint.url:
            raise UserError("s3 at somewhere: no answer after 4 attempts")
        return etag(url)

    with monkeypatch.context() as patch:
        patch.setattr(corrector_s3, "etag", refuse)
        with pytest.raises(OSError, match="no answer after 4 attempts"):
            run_lane(storage, spec, LocalClient(PromptQueue([task])), slots=1)
    assert stored is not None
    assert etag(task.folder.checkpoint.url) == stored
