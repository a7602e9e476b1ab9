"""Colours and metadata in image files of other people: what a viewer converts is converted, what it skips is skipped."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from corrector.exemplars import Limits
from corrector.exemplars.decoding import decode
from corrector.exemplars.files import UnreadableFileError
from corrector.exemplars.png_chunks import COLOURS
from tests.support.pictures import content, drawn

HERE = Path(__file__).parent / "exemplars"
LIMITS = Limits()
LINEAR = (HERE / "linear-srgb" / "gimp.png").read_bytes()
EXPECTED = np.asarray(Image.open(HERE / "linear-srgb" / "expected-as-srgb.png").convert("RGB"), dtype=float)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(image: Image.Image, *before: bytes, after: Sequence[bytes] = ()) -> bytes:
    """A PNG with these chunks before and after its pixels."""
    file = content(image)
    return file[:33] + b"".join(before) + file[33:-12] + b"".join(after) + file[-12:]


def profile(named: str | None = None) -> bytes:
    """sRGB's profile, also under another name."""
    found = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if named:
        found = found.replace("sRGB".encode("utf-16-be"), named.encode("utf-16-be"))
    return found


def icc(data: bytes) -> bytes:
    return chunk(b"iCCP", b"any\0\0" + zlib.compress(data))


def gama(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


with Image.open(io.BytesIO(LINEAR)) as opened:
    LINEAR_PROFILE: bytes = opened.info["icc_profile"]
    LIGHT = opened.convert("RGB")
SRGB_PRIMARIES = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
WIDE_PRIMARIES = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600))


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(LINEAR, id="a profile with sRGB in its name"),
        pytest.param(png(LIGHT, gama(1.0)), id="gAMA"),
        pytest.param(png(LIGHT, gama(1.0), SRGB_PRIMARIES), id="gAMA and cHRM"),
        pytest.param(png(LIGHT, chunk(b"cICP", b"\1\x08\0\1")), id="cICP"),
        pytest.param(
            png(LIGHT, chunk(b"cICP", b"\1\x08\0\1"), icc(profile())), id="cICP counts before a profile"
        ),
        pytest.param(
            png(LIGHT, icc(LINEAR_PROFILE), chunk(b"sRGB", b"\0")), id="a profile counts before sRGB"
        ),
        pytest.param(content(LIGHT, "TIFF", icc_profile=LINEAR_PROFILE), id="TIFF"),
        pytest.param(content(LIGHT, "WEBP", lossless=True, icc_profile=LINEAR_PROFILE), id="WebP"),
        pytest.param(
            content(LIGHT, "JPEG", quality=100, subsampling=0, icc_profile=LINEAR_PROFILE), id="JPEG"
        ),
    ],
)
def test_linear_light_is_converted_whatever_says_so(file: bytes) -> None:
    picture = decode(file, LIMITS)
    assert np.abs(np.asarray(picture.image, dtype=float) - EXPECTED).mean() < 1.5
    assert abs(np.asarray(picture.image).mean() - 151.4) < 0.5
    (remark,) = picture.remarks
    assert remark.startswith("has other colours than sRGB, which were converted (")


def test_gamma_applies_to_grey_too() -> None:
    grey = Image.linear_gradient("L")
    values = np.asarray(decode(png(grey, gama(1.0)), LIMITS).image, dtype=float)[:, 0, 0]
    light = np.arange(256) / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(values - expected).max() <= 1


def test_wide_primaries_are_converted() -> None:
    colour = Image.new("RGB", (8, 8), (120, 130, 110))
    colour.putpixel((0, 0), (0, 0, 0))
    results = []
    for chunks in ((chunk(b"cICP", b"\x09\x0d\0\1"),), (WIDE_PRIMARIES,), (WIDE_PRIMARIES, gama(1 / 2.2))):
        picture = decode(png(colour, *chunks), LIMITS)
        assert picture.remarks
        results.append(picture.image.getpixel((4, 4)))
    assert len(set(results)) == 1
    assert results[0] != (120, 130, 110)
    assert decode(png(Image.new("RGB", (8, 8), (90, 90, 90)), WIDE_PRIMARIES), LIMITS).image.getpixel(
        (4, 4)
    ) == (
        90,
        90,
        90,
    )


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param((chunk(b"sRGB", b"\0"), gama(1.0)), id="sRGB counts before gAMA"),
        pytest.param((gama(1 / 2.2), SRGB_PRIMARIES), id="gAMA and cHRM of sRGB"),
        pytest.param((SRGB_PRIMARIES,), id="cHRM of sRGB"),
        pytest.param((gama(0.0),), id="gAMA 0"),
        pytest.param((chunk(b"cHRM", bytes(32)),), id="cHRM 0"),
        pytest.param((chunk(b"cHRM", struct.pack(">8I", *[33_000] * 8)),), id="cHRM of one colour"),
        pytest.param((icc(profile("Line")),), id="sRGB by another name"),
        pytest.param((chunk(b"cICP", b"\1\x0d\0\1"), icc(LINEAR_PROFILE)), id="cICP of sRGB"),
        pytest.param((chunk(b"iCCP", b"any\0\0no zlib"), gama(1 / 2.2)), id="a damaged profile"),
    ],
)
def test_srgb_by_any_name_keeps_its_pixels(chunks: Sequence[bytes]) -> None:
    picture = decode(png(drawn(), *chunks), LIMITS)
    assert picture.image.tobytes() == drawn().tobytes()
    assert picture.remarks == ()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"\x09\x10\0\1", r"is of high dynamic range \(PQ\), which is not converted; export it as sRGB"),
        (b"\x09\x12\0\1", r"is of high dynamic range \(HLG\)"),
        (b"\1\x0d\0\0", r"is not converted \(cICP 1, 13, 0, 0\); export it as sRGB"),
        (b"\x16\x0d\0\1", "is not converted"),
    ],
)
def test_colours_that_are_not_converted_are_refused_by_name(code: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFileError, match=reason):
        decode(png(drawn(), chunk(b"cICP", code)), LIMITS)


@settings(deadline=None, derandomize=True, database=None, max_examples=50)
@given(
    name=st.sampled_from(COLOURS),
    data=st.binary(max_size=40),
    code=st.lists(st.integers(0, 255), min_size=4, max_size=4),
)
def test_whatever_a_colour_chunk_holds_it_raises_nothing_else(
    name: bytes, data: bytes, code: list[int]
) -> None:
    for body in (data, data.ljust(32, b"\1"), bytes(code), zlib.compress(data)):
        with suppress(UnreadableFileError):
            assert decode(png(drawn(8, 8), chunk(name, body), gama(0.7)), LIMITS).image.size == (8, 8)


# Metadata of a PNG


def long_texts() -> list[bytes]:
    text = bytes(range(32, 127)) * 20_000  # 1.9 MB
    packed = zlib.compress(text)
    return [
        chunk(b"tEXt", b"parameters\0" + text),
        chunk(b"zTXt", b"workflow\0\0" + packed),
        chunk(b"iTXt", b"prompt\0\1\0\0\0" + packed),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text),
        icc(profile() + text),
        chunk(b"teXt", b"unknown"),
        chunk(b"tEXt", b"a\0b")[:-1] + b"\0",
    ]


@pytest.mark.parametrize("number", range(7))
def test_metadata_of_any_size_costs_no_picture(number: int) -> None:
    metadata = long_texts()[number]
    for file in (png(drawn(), metadata), png(drawn(), after=[metadata])):
        picture = decode(file, LIMITS)
        assert picture.image.tobytes() == drawn().tobytes()
        assert picture.remarks == ()


def test_bombs_in_metadata_are_not_unpacked() -> None:
    bomb = zlib.compress(bytes(2**27), 1)
    file = png(
        drawn(),
        chunk(b"zTXt", b"a\0\0" + bomb),
        chunk(b"iTXt", b"a\0\1\0\0\0" + bomb),
        chunk(b"iCCP", b"a\0\0" + bomb),
    )
    tracemalloc.start()
    picture = decode(file, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert picture.image.tobytes() == drawn().tobytes()
    assert peak < 2**26
