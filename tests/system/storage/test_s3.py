"""Files and folders on S3, against a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster import ports
from corrector import s3 as corrector_s3
from corrector.errors import UserError
from tests.support.faulty_proxy import FaultyProxy
from tests.support.s3 import upload

MIB = 1024**2
NAMES_THAT_LEAD_OUT = (
    *("", ".", "..", "/lead", "../up", "sub/../../up", "a/../b", "a/..", "a//b", "./a"),
    *("a\\b", "..\\up", "a\0b"),
)

PIPELINE = {
    "model_index.json": b'{"_class_name": "StableDiffusion3Pipeline"}',
    "transformer/config.json": b"{}",
    "transformer/model.safetensors": bytes(range(256)) * 64,
    "tokenizer/special tokens é.txt": b"<|endoftext|>",
    "tokenizer/empty.txt": b"",
}

DOWNLOAD = """
import sys
from pathlib import Path
from corrector import s3 as corrector_s3
corrector_s3.download(sys.argv[1], Path(sys.argv[2]))
"""


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def put(s3: Any, bucket: str, *keys: str, content: bytes = b"x") -> None:
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=content)


def test_a_folder_comes_back_as_it_went(bucket: str, tmp_path: Path) -> None:
    upload(write(tmp_path / "sd3", PIPELINE), f"s3://{bucket}/models/sd3")
    assert corrector_s3.download(f"s3://{bucket}/models/sd3", tmp_path / "back") == tmp_path / "back"
    assert read(tmp_path / "back") == PIPELINE


def test_a_whole_bucket_is_a_folder_too(bucket: str, tmp_path: Path) -> None:
    upload(write(tmp_path / "sd3", PIPELINE), f"s3://{bucket}")
    assert read(corrector_s3.download(f"s3://{bucket}/", tmp_path / "back")) == PIPELINE


def test_a_file_comes_back_under_its_keys_last_part(bucket: str, tmp_path: Path) -> None:
    adapter = write(tmp_path, {"adapter.safetensors": b"weights"}) / "adapter.safetensors"
    upload(adapter, f"s3://{bucket}/adapters/lying.safetensors")
    back = corrector_s3.download(f"s3://{bucket}/adapters/lying.safetensors", tmp_path / "back")
    assert back == tmp_path / "back" / "lying.safetensors"
    assert back.read_bytes() == b"weights"


def test_a_prefix_is_a_folder_and_not_the_beginning_of_a_name(s3: Any, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, "models/sd3/config.json", "models/sd35/config.json", "models/sd3-old/config.json")
    assert read(corrector_s3.download(f"s3://{bucket}/models/sd3", tmp_path)) == {"config.json": b"x"}
    with pytest.raises(UserError, match="nothing is there"):
        corrector_s3.download(f"s3://{bucket}/models/sd", tmp_path)


def test_objects_that_stand_for_folders_are_left_out(s3: Any, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, "m/", "m/sub/", content=b"")
    with pytest.raises(UserError, match="nothing is there"):
        corrector_s3.fingerprint(f"s3://{bucket}/m")
    put(s3, bucket, "m/sub/a.txt")
    assert read(corrector_s3.download(f"s3://{bucket}/m", tmp_path)) == {"sub/a.txt": b"x"}


def test_only_what_is_to_be_kept_is_fetched(bucket: str, tmp_path: Path) -> None:
    upload(write(tmp_path / "sd3", PIPELINE), f"s3://{bucket}/sd3")
    corrector_s3.download(
        f"s3://{bucket}/sd3", tmp_path / "back", keep=lambda key: key.startswith("transformer/")
    )
    assert sorted(read(tmp_path / "back")) == ["transformer/config.json", "transformer/model.safetensors"]
    with pytest.raises(UserError, match="none of its 5 objects is needed"):
        corrector_s3.download(
            f"s3://{bucket}/sd3", tmp_path / "none", keep=lambda key: key.startswith("unet/")
        )


def test_a_listing_of_more_than_one_page_is_read_to_its_end(
    s3: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corrector_s3, "PAGE_SIZE", 2)
    put(s3, bucket, *(f"many/{number}" for number in range(5)))
    assert sorted(read(corrector_s3.download(f"s3://{bucket}/many", tmp_path))) == ["0", "1", "2", "3", "4"]


def test_large_files_travel_in_parts(s3: Any, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(os.urandom(8 * MIB + 7))
    upload(tmp_path / "large.bin", f"s3://{bucket}/large.bin")
    assert s3.head_object(Bucket=bucket, Key="large.bin")["ETag"].endswith('-2"')
    back = corrector_s3.download(f"s3://{bucket}/large.bin", tmp_path / "back")
    assert back.read_bytes() == (tmp_path / "large.bin").read_bytes()


def test_the_fingerprint_changes_with_every_change(s3: Any, bucket: str) -> None:
    url = f"s3://{bucket}/sd3"
    put(s3, bucket, "sd3/a", "sd3/b", "sd35/a")
    seen = [corrector_s3.fingerprint(url)]
    put(s3, bucket, "sd35/a", "sd35/b", content=b"y")
    assert corrector_s3.fingerprint(url) == corrector_s3.fingerprint(url + "/") == seen[0]
    for change in (
        lambda: put(s3, bucket, "sd3/a", content=b"y"),
        lambda: put(s3, bucket, "sd3/c", content=b"y"),
        lambda: s3.delete_object(Bucket=bucket, Key="sd3/b"),
    ):
        change()
        seen.append(corrector_s3.fingerprint(url))
    assert len(set(seen)) == 4


def test_the_fingerprint_is_that_of_what_is_kept(s3: Any, bucket: str) -> None:
    put(s3, bucket, "sd3/a", "sd3/notes.md")
    before = corrector_s3.fingerprint(f"s3://{bucket}/sd3", keep=lambda key: not key.endswith(".md"))
    put(s3, bucket, "sd3/notes.md", content=b"more")
    assert corrector_s3.fingerprint(f"s3://{bucket}/sd3", keep=lambda key: not key.endswith(".md")) == before
    assert corrector_s3.fingerprint(f"s3://{bucket}/sd3/notes.md") != corrector_s3.fingerprint(
        f"s3://{bucket}/sd3/a"
    )


def test_what_is_there_is_not_fetched_again_unless_it_changed(s3: Any, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, "sd3/a", "sd3/b", content=b"1")
    corrector_s3.download(f"s3://{bucket}/sd3", tmp_path)
    before = (tmp_path / "a").stat().st_ino, (tmp_path / "b").stat().st_ino
    put(s3, bucket, "sd3/b", content=b"2")  # as long, and perhaps within the same second
    corrector_s3.download(f"s3://{bucket}/sd3", tmp_path)
    assert (tmp_path / "a").stat().st_ino == before[0]
    assert read(tmp_path) == {"a": b"1", "b": b"2"}


def test_a_key_that_could_leave_the_folder_stops_the_download(s3: Any, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, "m/../up", "m/good")
    with pytest.raises(UserError, match="could lie outside"):
        corrector_s3.download(f"s3://{bucket}/m", tmp_path / "into" / "this")
    assert read(tmp_path) == {}
    corrector_s3.download(f"s3://{bucket}/m", tmp_path / "into" / "this", keep=lambda key: key == "good")
    assert read(tmp_path) == {"into/this/good": b"x"}


@pytest.mark.parametrize("name", NAMES_THAT_LEAD_OUT)
def test_no_name_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rename or remove that object"):
        corrector_s3.local_path(tmp_path, name, "s3://bucket")
    assert corrector_s3.local_path(tmp_path, "a..b/c.", "s3://bucket") == tmp_path / "a..b" / "c."


def test_an_object_in_the_place_of_a_folder_is_refused(s3: Any, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, "m/a", "m/a/b/c")
    with pytest.raises(UserError, match='"a" is an object and the folder of "a/b/c"'):
        corrector_s3.download(f"s3://{bucket}/m", tmp_path)
    assert read(tmp_path) == {}


def test_a_download_that_is_killed_leaves_no_half_file_and_can_be_repeated(
    s3: Any, bucket: str, tmp_path: Path
) -> None:
    content = {"a.json": b"{}", "weights.safetensors": os.urandom(12 * MIB)}
    upload(write(tmp_path / "m", content), f"s3://{bucket}/m")
    into = tmp_path / "into"
    with FaultyProxy(s3.meta.endpoint_url) as proxy:
        proxy.stall(after=4 * MIB)
        downloading = subprocess.Popen(
            [sys.executable, "-c", DOWNLOAD, f"s3://{bucket}/m", str(into)],
            env={**os.environ, "AWS_ENDPOINT_URL": proxy.url},
        )
        assert proxy.stalled.wait(60)
        downloading.send_signal(signal.SIGKILL)
        downloading.wait()
    assert not (into / "weights.safetensors").exists()
    corrector_s3.download(f"s3://{bucket}/m", into)
    assert (into / "weights.safetensors").read_bytes() == content["weights.safetensors"]


def test_a_server_that_goes_away_in_the_middle_leaves_nothing(
    s3: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corrector_s3, "ATTEMPTS", 2)
    put(s3, bucket, "weights.safetensors", content=os.urandom(12 * MIB))
    with FaultyProxy(s3.meta.endpoint_url) as proxy, ThreadPoolExecutor(1) as pool:
        proxy.stall(after=4 * MIB)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        downloading = pool.submit(corrector_s3.download, f"s3://{bucket}/weights.safetensors", tmp_path)
        assert proxy.stalled.wait(60)
        proxy.refuse()
        with pytest.raises(UserError, match=f"at {proxy.url}: no answer after"):
            downloading.result(60)
    assert read(tmp_path) == {}


def test_a_wrong_secret_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    with pytest.raises(UserError, match="its secret is wrong; check AWS_ACCESS_KEY_ID and AWS_SECRET"):
        corrector_s3.fingerprint(f"s3://{bucket}/a")


def test_missing_credentials_are_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UserError, match="no credentials; set AWS_ACCESS_KEY_ID"):
        corrector_s3.fingerprint(f"s3://{bucket}/a")


def test_an_unknown_profile_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match=r"profile \(nobody\) could not be found; check the AWS_ variables"):
        corrector_s3.fingerprint(f"s3://{bucket}/a")


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_named_with_its_server(tmp_path: Path) -> None:
    for call in (
        lambda: corrector_s3.download("s3://no-such-bucket/a", tmp_path),
        lambda: corrector_s3.fingerprint("s3://no-such-bucket/a"),
    ):
        with pytest.raises(
            UserError, match=r"s3://no-such-bucket/a at http://127.*there is no such bucket; create it"
        ):
            call()


def test_a_missing_key_is_named(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"s3://{bucket}/sd3 at http://127.*nothing is there"):
        corrector_s3.fingerprint(f"s3://{bucket}/sd3")


@pytest.mark.parametrize("url", ["s3://", "s3:///key", "bucket/key", "https://bucket/key"])
def test_what_is_no_s3_url_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="is no S3 URL; write s3://BUCKET/KEY"):
        corrector_s3.fingerprint(url)


def test_a_server_that_is_down_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{ports.choose('port', None, taken=set())}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(
        UserError, match=f"{url}: no answer after {corrector_s3.ATTEMPTS} attempts.*check AWS_ENDPOINT_URL"
    ):
        corrector_s3.fingerprint(f"s3://{bucket}/a")


def test_an_endpoint_that_is_no_url_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(UserError, match="Invalid endpoint: localhost:9000"):
        corrector_s3.fingerprint(f"s3://{bucket}/a")


def test_a_disk_that_cannot_be_written_is_named(s3: Any, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, "m/a")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=f"{tmp_path / 'file'}.*: Not a directory; make room"):
        corrector_s3.download(f"s3://{bucket}/m", tmp_path / "file")
