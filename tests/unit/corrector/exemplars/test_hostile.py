"""Whatever bytes a file holds, it is used or noted; it never raises."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from corrector.exemplars import Limits, load_exemplars
from corrector.exemplars.decoding import decode
from corrector.exemplars.files import UnreadableFileError
from tests.support.pictures import content, drawn

LIMITS = Limits(pixels=1_000_000)

SEEDS = {
    "PNG": content(drawn()),
    "palette PNG": content(drawn().convert("P"), "PNG", transparency=3),
    "APNG": content(drawn(), "PNG", save_all=True, append_images=[drawn(number=1)]),
    "JPEG": content(drawn(), "JPEG", exif=Image.Exif().tobytes()),
    "progressive CMYK JPEG": content(drawn().convert("CMYK"), "JPEG", progressive=True),
    "WebP": content(drawn(), "WEBP"),
    "animated WebP": content(drawn(), "WEBP", save_all=True, append_images=[drawn(number=1)]),
    "GIF": content(drawn(), "GIF", save_all=True, append_images=[drawn(number=1)]),
    "BMP": content(drawn(), "BMP"),
    "TIFF": content(drawn(), "TIFF"),
    "LZW TIFF": content(drawn(), "TIFF", compression="tiff_lzw"),
}
STARTS = [file[:16] for file in SEEDS.values()] + [b"", b"BM", b"\0\0\0\x1cftypavif", b"<svg"]

deterministic = settings(deadline=None, derandomize=True, database=None)


def used_or_noted(file: bytes) -> None:
    try:
        picture = decode(file, LIMITS)
    except UnreadableFileError as problem:
        reason = str(problem)
    else:
        assert picture.image.mode == "RGB"
        assert picture.image.width * picture.image.height <= LIMITS.pixels
        assert len(picture.image.tobytes()) == 3 * picture.image.width * picture.image.height
        return
    assert "; " in reason
    assert reason.isprintable()
    assert len(reason) < 300


@settings(deterministic, max_examples=200)
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=400))
def test_random_bytes_behind_every_magic_number(start: bytes, rest: bytes) -> None:
    used_or_noted(start + rest)


@pytest.mark.parametrize("name", SEEDS)
@settings(deterministic, max_examples=60)
@given(data=st.data())
def test_real_files_with_some_bytes_changed(name: str, data: st.DataObject) -> None:
    file = bytearray(SEEDS[name])
    early = st.integers(0, min(len(file) - 1, 200))
    anywhere = st.integers(0, len(file) - 1)
    changes = st.lists(st.tuples(early | anywhere, st.integers(0, 255)), min_size=1, max_size=8)
    for position, value in data.draw(changes):
        file[position] = value
    used_or_noted(bytes(file))


@settings(deterministic, max_examples=150)
@given(name=st.sampled_from(sorted(SEEDS)), part=st.floats(0, 1))
def test_real_files_cut_anywhere(name: str, part: float) -> None:
    file = SEEDS[name]
    used_or_noted(file[: int(len(file) * part)])


@settings(deterministic, max_examples=60)
@given(
    suffix=st.sampled_from([".png", ".jpg", ".webp", ".gif", ".tiff", ".bmp", ".heic", ".txt", ""]),
    start=st.sampled_from(STARTS),
    rest=st.binary(max_size=200),
)
def test_a_folder_with_a_random_file_is_still_usable(suffix: str, start: bytes, rest: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(8):
            drawn(32, 32, number).save(folder / f"{number}.png")
        (folder / f"hostile{suffix}").write_bytes(start + rest)
        found = load_exemplars(folder, resolution=16)
        used = {exemplar.path.name for exemplar in (*found.training, *found.held_out)}
        assert {f"{number}.png" for number in range(8)} <= used
        assert f"hostile{suffix}" in used or any("hostile" in note for note in found.notes)
