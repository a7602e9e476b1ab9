"""ContentCache keeps tensors whole, survives damage, and keeps hostile keys inside its folder."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from corrector.base import ContentCache, content_key


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path / "new")
    key = content_key("latents", "abc", 64)
    assert cache.get(key) is None
    tensors = {
        "mean": torch.randn(2, 3).T,
        "count": torch.arange(4, dtype=torch.int64),
        "half": torch.ones(2).bfloat16(),
    }
    cache.put(key, tensors)
    found = ContentCache(tmp_path / "new").get(key)
    assert found is not None
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert [path.name for path in (tmp_path / "new").rglob("*") if path.is_file()] == [f"{key}.tensors"]


def test_keys_differ_with_parts_kinds_and_order() -> None:
    assert content_key("a", "b") != content_key("b", "a")
    assert content_key("a", "b") != content_key("ab")
    assert content_key(1) != content_key("1") != content_key(None)


def test_tensors_that_share_memory_are_kept(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path)
    whole = torch.arange(6.0)
    cache.put("views", {"first": whole[:3], "all": whole})
    found = cache.get("views")
    assert found is not None
    assert torch.equal(found["first"], whole[:3])
    assert torch.equal(found["all"], whole)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-50],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: b"",
    ],
    ids=["cut off", "a bit of the last value", "a bit of the digest", "empty"],
)
def test_a_damaged_entry_counts_as_missing_and_can_be_put_again(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    cache = ContentCache(tmp_path)
    cache.put("entry", {"x": torch.ones(100)})
    path = next(tmp_path.rglob("entry.tensors"))
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("entry") is None
    assert not path.exists()
    cache.put("entry", {"x": torch.zeros(1)})
    assert cache.get("entry") is not None


def test_readers_never_see_half_an_entry(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path)

    def write_and_read(number: int) -> bool:
        cache.put("shared", {"x": torch.full((20_000,), float(number))})
        found = cache.get("shared")
        return found is not None and bool((found["x"] == found["x"][0]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(40)))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_trimming_removes_what_was_not_used_for_longest_and_only_of_that_part(tmp_path: Path) -> None:
    whole = ContentCache(tmp_path)
    images = whole.images
    whole.put("exemplars", {"x": torch.ones(1000)})
    for second, key in enumerate(("first", "second", "third")):
        images.put(key, {"x": torch.ones(1000)})
        os.utime(next(tmp_path.rglob(f"{key}.tensors")), (second, second))
    images.get("first")

    images.trim(2 * 5000)

    assert [key for key in ("first", "second", "third") if images.get(key)] == ["first", "third"]
    images.trim(0)
    assert [path.stem for path in tmp_path.rglob("*.tensors")] == ["exemplars"]


@pytest.mark.parametrize("key", ["", "../outside", "a/b", "a.b", "x" * 201, "nul\0"])
def test_keys_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="cache key"):
        ContentCache(tmp_path).put(key, {"x": torch.ones(1)})
