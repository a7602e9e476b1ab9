"""The same images are the same exemplars, wherever they come from."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from corrector.errors import UserError
from corrector.exemplars.sources import load_source, resolve_source
from corrector.prompts import BatchErrors, EvaluationSettings, FailingPrompt, GateThresholds
from corrector.settings import Settings
from jobs.inputs.batch import check_batch
from tests.support.archive_server import serving
from tests.support.archives import PICTURES, tarred, zipped


@pytest.fixture
def environment(tmp_path: Path) -> Settings:
    return Settings(
        cache=tmp_path / "cache",
        storage=str(tmp_path / "runs"),
        tracking_uri=None,
        exemplar_roots=(),
        allow_private_urls=True,
    )


def dataset(folder: Path, *, split: str = "train") -> Path:
    """A Hugging Face dataset folder with captions."""
    (folder / split).mkdir(parents=True)
    for name, body in PICTURES.items():
        (folder / split / name).write_bytes(body)
    (folder / split / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a caption"}\n')
    return folder


def work_id(reference: str, folder: Path, environment: Settings) -> str:
    found = load_source(reference, folder, resolution=32, settings=environment)
    prompt = FailingPrompt(prompt="a person lying", exemplars=reference, guard_prompts=("a dog",))
    digests = list(found.file_digests.values())
    return prompt.work_id("base", digests, EvaluationSettings(), GateThresholds())


def test_the_same_images_give_the_same_work_id(tmp_path: Path, environment: Settings) -> None:
    (tmp_path / "plain").mkdir()
    for name, body in PICTURES.items():
        (tmp_path / "plain" / f"renamed-{name}").write_bytes(body)
    dataset(tmp_path / "dataset")
    (tmp_path / "a.zip").write_bytes(zipped({f"in/{name}": body for name, body in PICTURES.items()}))
    (tmp_path / "a.tar.gz").write_bytes(tarred(PICTURES, mode="w:gz"))
    with serving() as web:
        web.bodies["/a"] = (tmp_path / "a.zip").read_bytes()
        places = ("plain", "dataset", "a.zip", "a.tar.gz", f"{web.url}/a")
        assert len({work_id(place, tmp_path, environment) for place in places}) == 1


def test_every_exemplar_says_where_it_came_from_without_credentials(
    tmp_path: Path, environment: Settings
) -> None:
    (tmp_path / "plain").mkdir()
    for name, body in PICTURES.items():
        (tmp_path / "plain" / name).write_bytes(body)
    dataset(tmp_path / "dataset")
    (tmp_path / "a.zip").write_bytes(zipped(PICTURES))
    with serving() as web:
        web.bodies["/a"] = (tmp_path / "a.zip").read_bytes()
        wanted = {
            "plain": ("folder", "plain"),
            "dataset": ("dataset", "dataset"),
            "a.zip": ("archive", "a.zip"),
            f"{web.url}/a?signature=SECRET": ("archive", f"{web.url}/a?…"),
        }
        for reference, source in wanted.items():
            found = load_source(reference, tmp_path, resolution=32, settings=environment)
            assert {(each.kind, each.place) for each in found.sources} == {source}
            assert len(found.sources) == len(PICTURES)


@pytest.mark.parametrize("split", ["train", "data/validation", "."])
def test_of_a_dataset_folder_the_images_are_read_and_the_captions_not(
    split: str, tmp_path: Path, environment: Settings
) -> None:
    dataset(tmp_path / "dataset", split=split)
    found = resolve_source("dataset", tmp_path, settings=environment)
    assert sorted(path.read_bytes() for path in found.folder.iterdir()) == sorted(PICTURES.values())
    assert len(found.notes) == 1
    assert found.notes[0].endswith("metadata.jsonl: captions are not read; the batch file's prompt counts")
    assert resolve_source("dataset", tmp_path, settings=environment) == found


def test_parquet_is_refused_with_what_to_do(tmp_path: Path, environment: Settings) -> None:
    (tmp_path / "dataset" / "data").mkdir(parents=True)
    (tmp_path / "dataset" / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        UserError, match=r'"dataset": no images in it.*\n.*\n  Parquet files are not read; save the'
    ):
        resolve_source("dataset", tmp_path, settings=environment)


def test_links_out_of_a_dataset_folder_are_not_followed(tmp_path: Path, environment: Settings) -> None:
    folder = dataset(tmp_path / "batch" / "dataset")
    (tmp_path / "secret.png").write_bytes(PICTURES["0.png"])
    (folder / "train" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "test").symlink_to(tmp_path)
    found = resolve_source("dataset", tmp_path / "batch", settings=environment)
    assert len(list(found.folder.iterdir())) == len(PICTURES)
    assert any("link.png: is a symbolic link into" in note for note in found.notes)


def test_a_plain_folder_is_not_copied(tmp_path: Path, environment: Settings) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "0.png").write_bytes(PICTURES["0.png"])
    assert resolve_source("plain", tmp_path, settings=environment).folder == tmp_path / "plain"
    assert not environment.cache.exists()


def test_what_was_not_used_for_long_leaves_a_full_cache(tmp_path: Path, environment: Settings) -> None:
    small = replace(environment, exemplar_cache_bytes=0)
    for number, name in enumerate(("unused", "used", "new")):
        body = zipped({f"{each}.png": PICTURES[f"{each}.png"] for each in (number, number + 1)})
        (tmp_path / f"{name}.zip").write_bytes(body)
    unused, used = (
        resolve_source(name, tmp_path, settings=small).folder for name in ("unused.zip", "used.zip")
    )
    for folder in (unused, used):
        os.utime(folder.parent, (0, 0))
    assert resolve_source("used.zip", tmp_path, settings=small).folder == used
    new = resolve_source("new.zip", tmp_path, settings=small).folder
    assert [folder.exists() for folder in (unused, used, new)] == [False, True, True]
    assert resolve_source("unused.zip", tmp_path, settings=small).folder == unused
    assert len(list(unused.iterdir())) == 2


def test_a_dataset_folder_in_use_stays_in_a_full_cache(tmp_path: Path, environment: Settings) -> None:
    small = replace(environment, exemplar_cache_bytes=0)
    dataset(tmp_path / "dataset")
    found = resolve_source("dataset", tmp_path, settings=small)
    os.utime(found.folder.parent, (0, 0))
    assert resolve_source("dataset", tmp_path, settings=small) == found
    assert len(list(found.folder.iterdir())) == len(PICTURES)


def test_too_few_images_are_told_by_the_name_in_the_batch_file(tmp_path: Path, environment: Settings) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"0.png": PICTURES["0.png"]}))
    with pytest.raises(UserError, match=r'only 1 usable image where 2 are needed in "a.zip"'):
        load_source("a.zip", tmp_path, resolution=32, settings=environment)


def test_a_job_tells_the_line_of_an_archive_that_it_cannot_use(tmp_path: Path, environment: Settings) -> None:
    (tmp_path / "good.zip").write_bytes(zipped(PICTURES))
    (tmp_path / "bad.zip").write_bytes(zipped({"../1.png": b""}))
    entry = "  - prompt: a {0}\n    exemplars: {0}.zip\n    preservation: none\n"
    batch = tmp_path / "batch.yaml"
    batch.write_text("prompts:\n" + entry.format("good") + entry.format("bad"))
    with pytest.raises(BatchErrors) as raised:
        check_batch(batch, storage=tmp_path / "runs", settings=environment)
    assert str(raised.value).startswith(
        f'{batch}:6: exemplars: "bad.zip": its entry "../1.png" leads outside'
    )
    batch.write_text("prompts:\n" + entry.format("good"))
    (task,) = check_batch(batch, storage=tmp_path / "runs", settings=environment).tasks
    assert len(task.sources) == len(PICTURES)


def test_the_check_of_a_plain_batch_file_imports_no_slow_library() -> None:
    program = (
        "import sys, corrector.prompts.__main__\n"
        "print(sorted({'boto3', 'botocore', 'diffusers', 'scipy', 'torch'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    assert told.stdout == "[]\n"
