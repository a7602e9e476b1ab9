"""Adapters on disk: verified at every load, fetched once, within a budget."""

import os
import time
from pathlib import Path

import pytest

from corrector.adapters import WEIGHTS_NAME
from serving.adapter_identity import AdapterIdentity
from serving.engine.adapter_cache import AdapterDiskCache
from serving.engine.request import AdapterUnavailable
from tests.support.served_adapters import FolderSource, write_adapter


@pytest.fixture
def source(tmp_path: Path) -> FolderSource:
    return FolderSource(
        (write_adapter(tmp_path / "registry" / name, name, seed=seed), tmp_path / "registry" / name)
        for seed, name in enumerate("abc")
    )


def folder_of(cache: Path, adapter: AdapterIdentity) -> Path:
    return cache / adapter.sha256[:2] / adapter.sha256


def test_an_adapter_is_fetched_once_and_then_read_from_disk(source: FolderSource, tmp_path: Path) -> None:
    disk = AdapterDiskCache(tmp_path / "cache", source, budget=10**9)
    a, b, _ = source.folders
    for adapter in (a, b, a, a):
        assert disk.load(adapter).rank == 4
    assert AdapterDiskCache(tmp_path / "cache", source, budget=10**9).load(a).rank == 4
    assert source.fetched == {a: 1, b: 1}


def test_damaged_bytes_on_disk_are_fetched_again(source: FolderSource, tmp_path: Path) -> None:
    disk = AdapterDiskCache(tmp_path / "cache", source, budget=10**9)
    a, *_ = source.folders
    disk.load(a)
    weights = folder_of(tmp_path / "cache", a) / WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert disk.load(a).rank == 4
    (weights.parent / WEIGHTS_NAME).unlink()
    assert disk.load(a).rank == 4
    assert source.fetched[a] == 3


def test_other_bytes_than_the_registered_are_refused_and_leave_nothing(
    source: FolderSource, tmp_path: Path
) -> None:
    a, b, _ = source.folders
    source.folders[a] = source.folders[b]
    disk = AdapterDiskCache(tmp_path / "cache", source, budget=10**9)
    with pytest.raises(
        AdapterUnavailable, match=f"a@1: the SHA-256 of its weights is {b.sha256}, registered was"
    ):
        disk.load(a)
    assert not folder_of(tmp_path / "cache", a).exists()


def test_what_is_no_adapter_is_refused(source: FolderSource, tmp_path: Path) -> None:
    from corrector.files import file_sha256

    a, *_ = source.folders
    weights = source.folders[a] / WEIGHTS_NAME
    weights.write_bytes(b"pickled, perhaps")
    imposter = AdapterIdentity("imposter", "1", file_sha256(weights))
    source.folders[imposter] = source.folders[a]
    with pytest.raises(AdapterUnavailable, match="imposter@1"):
        AdapterDiskCache(tmp_path / "cache", source, budget=10**9).load(imposter)
    with pytest.raises(AdapterUnavailable, match="nobody@2: nobody@2: not found"):
        AdapterDiskCache(tmp_path / "cache", source, budget=10**9).load(
            AdapterIdentity("nobody", "2", "0" * 64)
        )


def test_the_disk_s_budget_holds_and_what_is_used_stays(source: FolderSource, tmp_path: Path) -> None:
    a, b, c = source.folders
    size = sum(file.stat().st_size for file in source.folders[a].iterdir())
    disk = AdapterDiskCache(tmp_path / "cache", source, budget=int(2.5 * size))
    for age, adapter in ((3, a), (2, b)):
        disk.load(adapter)
        then = time.time() - 60 * age
        os.utime(folder_of(tmp_path / "cache", adapter), (then, then))
    disk.load(a)
    disk.load(c)
    kept = {adapter for adapter in (a, b, c) if folder_of(tmp_path / "cache", adapter).exists()}
    assert kept == {a, c}
    disk.load(b)
    assert source.fetched == {a: 1, b: 2, c: 1}
