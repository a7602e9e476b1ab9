"""Image files of other people: each kind is read as a viewer shows it, or named with what to do."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from corrector.errors import UserError
from corrector.exemplars import Limits, load_exemplars
from corrector.exemplars.decoding import decode
from corrector.exemplars.files import UnreadableFileError
from corrector.exemplars.png_chunks import COLOURS
from corrector.prompts import load_batch
from corrector.settings import Settings
from jobs.inputs.batch import check_batch
from tests.support.pictures import content, drawn

HERE = Path(__file__).parent / "exemplars"
LIMITS = Limits()
RAW = "is a camera raw file; develop it to PNG or JPEG"
POINTER = "is a Git LFS pointer, not the image itself; run git lfs pull"
LINEAR = (HERE / "linear-srgb" / "gimp.png").read_bytes()
EXPECTED = np.asarray(Image.open(HERE / "linear-srgb" / "expected-as-srgb.png").convert("RGB"), dtype=float)


def told(folder: Path) -> str:
    """The notes on a folder, or why none of it can be used."""
    try:
        return "\n".join(load_exemplars(folder, resolution=64, held_out_fraction=0.0).notes)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize(
    ("folder", "lines", "used"),
    [
        (
            "portrait",
            (
                "warning: the crop loses more than 20% of 2 of 2 pictures, up to 67%; crop them to squares, or set",
                "p0.jpg: is 512x1536; the crop to a square loses 67%",
                "p1.jpg: is 512x1536; the crop to a square loses 67%",
            ),
            2,
        ),
        ("camera-raw", (f"photo.DNG: {RAW}",), 0),
        (
            "linear-srgb",
            ("gimp.png: has other colours than sRGB, which were converted (GIMP built-in Linear sRGB)",),
            1,
        ),
        (
            "onetrainer",
            (
                "masks of a training tool (-masklabel, -condlabel), left out: 900000-masklabel.png, ",
                "captions, not read (the batch file's prompt counts): 900000.txt, ",
            ),
            6,
        ),
        ("png-large-text", (), 1),
        ("lfs-pointer", (f"900000.png: {POINTER}",), 0),
        ("bmp32", (), 1),
    ],
)
def test_every_folder_from_outside(folder: str, lines: Sequence[str], used: int) -> None:
    notes = told(HERE / folder)
    assert all(line in notes for line in lines), notes
    if used:
        found = load_exemplars(HERE / folder, resolution=64, held_out_fraction=0.0)
        assert len(found.training) == used
        assert len([note for note in found.notes if "-masklabel" in note or "(the batch file" in note]) == (
            2 if folder == "onetrainer" else 0
        )


# Cropping and padding


def test_padding_keeps_the_whole_picture_between_bars_of_its_edges() -> None:
    pictures = {
        how: load_exemplars(HERE / "portrait", resolution=96, fit=how, held_out_fraction=0.0).training[0]
        for how in ("crop", "pad")
    }
    with Image.open(pictures["pad"].path) as image:
        inner = np.asarray(image.convert("RGB").resize((32, 96), Image.Resampling.LANCZOS), dtype=float)
    padded = pictures["pad"].image.permute(1, 2, 0).numpy() * 255
    assert np.abs(padded[:, 32:64] - inner).max() <= 0.5
    for bar, edge in ((padded[:, :32], inner[:, :1]), (padded[:, 64:], inner[:, -1:])):
        assert np.ptp(bar, axis=(0, 1)).max() == 0
        assert np.abs(bar[0, 0] - edge.mean(axis=(0, 1))).max() <= 1
    assert pictures["crop"].sha256 == pictures["pad"].sha256
    assert not np.array_equal(pictures["crop"].image, pictures["pad"].image)


def test_the_choice_reaches_exemplars_work_and_cache_of_a_job(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(content(drawn(64, 96, number)))
    work = {}
    for how in ("crop", "pad"):
        batch = tmp_path / f"{how}.yaml"
        entry = {"prompt": "a cat", "exemplars": ".", "exemplar_fit": how, "preservation": "none"}
        batch.write_text("prompts:\n  - " + "\n    ".join(f"{key}: {each}" for key, each in entry.items()))
        work[how] = check_batch(batch, storage=tmp_path / "runs")
    (crop,), (pad,) = work["crop"].tasks, work["pad"].tasks
    assert crop.work_id != pad.work_id
    assert crop.exemplars != pad.exemplars
    sets = [work[how].exemplars["a-cat"] for how in ("crop", "pad")]
    assert sets[0].training_images().shape == sets[1].training_images().shape
    assert not np.array_equal(sets[0].held_out_images(), sets[1].held_out_images())
    assert [found.notes[0].split(" more than")[0] for found in sets] == [
        "warning: the crop loses",
        "warning: bars fill",
    ]


@pytest.mark.parametrize(
    ("size", "share"), [((64, 64), None), ((64, 65), "2%"), ((96, 64), "33%"), ((64, 640), "90%")]
)
def test_the_share_that_is_lost_is_told(tmp_path: Path, size: tuple[int, int], share: str | None) -> None:
    (tmp_path / "a.png").write_bytes(content(drawn(*size)))
    notes = told(tmp_path)
    assert ("loses" in notes) == (share is not None)
    assert f"the crop to a square loses {share}" in notes or share is None
    assert notes.startswith("warning: the crop loses more than 20%") == (share in ("33%", "90%"))


# Camera raw files


def tiff(*directories: Mapping[int, int], magic: bytes = b"II*\0") -> bytes:
    """A TIFF file of directories with these tags, a whole number each; the second lies in tag 330 of the first."""
    start, parts = 8, list[bytes]()
    sizes = [
        2 + 12 * (len(tags) + (not number and len(directories) > 1)) + 4
        for number, tags in enumerate(directories)
    ]
    for number, tags in enumerate(directories):
        below = {330: start + sizes[0]} if number == 0 and len(directories) > 1 else {}
        entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted({**tags, **below}.items())]
        parts.append(struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))
    return magic + struct.pack("<I", start) + b"".join(parts)


PREVIEW = {254: 1, 256: 160, 257: 120, 262: 2}
SENSOR = {254: 0, 256: 6000, 257: 4000, 262: 32803}


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(tiff(PREVIEW, SENSOR), id="NEF, ARW, SRW: the sensor's picture lies below a preview"),
        pytest.param(tiff(SENSOR), id="PEF, 3FR: the sensor's picture alone"),
        pytest.param(tiff({**SENSOR, 262: 34892}), id="linear raw"),
        pytest.param(tiff({**PREVIEW, 50706: 1}), id="DNG"),
        pytest.param(b"II*\0\x10\0\0\0CR\2\0" + bytes(80), id="CR2"),
        pytest.param(b"\0\0\0\x18ftypcrx \0\0\0\1" + bytes(80), id="CR3"),
        pytest.param(b"IIRO\x08\0\0\0" + bytes(80), id="ORF"),
        pytest.param(b"IIU\0\x18\0\0\0" + bytes(80), id="RW2"),
        pytest.param(b"FUJIFILMCCD-RAW 0201" + bytes(80), id="RAF"),
        pytest.param(b"FOVb" + bytes(80), id="X3F"),
        pytest.param(b"MM\0*\0\0\0\x20MMMMRawT" + bytes(80), id="IIQ"),
    ],
)
@pytest.mark.parametrize("name", ["photo.raw", "photo.tif", "photo.dng"])
def test_camera_raw_is_named_by_its_content(file: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(file)
    assert f"{name}: {RAW}" in told(tmp_path)


def test_a_camera_raw_file_is_named_without_being_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content(drawn(64, 64)))
    with (tmp_path / "large.nef").open("wb") as file:
        file.write(tiff(PREVIEW, SENSOR))
        file.truncate(2**40)
    (tmp_path / "damaged.arw").write_bytes(b"no picture")
    assert told(tmp_path).splitlines() == [
        f"large.nef: {RAW}",
        "camera raw files, left out (develop them to PNG or JPEG): damaged.arw",
    ]


@pytest.mark.parametrize("grey", [0x49, 0x4D])
def test_grey_pixels_in_the_place_of_a_mark_are_no_camera_raw(grey: int) -> None:
    pixels = bytes([grey] * 255 + [250])
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 16, 279: 256}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file = b"II*\0" + struct.pack("<I", 264) + pixels + struct.pack("<H", len(tags)) + directory + bytes(4)
    assert decode(file, LIMITS).image.getpixel((15, 15)) == (250, 250, 250)


def test_a_preview_before_the_picture_is_not_used() -> None:
    with pytest.raises(UnreadableFileError, match="begins with a preview"):
        decode(tiff(PREVIEW, {**SENSOR, 262: 2}), LIMITS)
    pages = content(drawn(), "TIFF", save_all=True, append_images=[drawn(number=1)])
    assert decode(pages, LIMITS).remarks == ("holds several pictures; the first is used",)


# Colours


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


# Git LFS pointers


@pytest.mark.parametrize("spec", ["https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1"])
def test_pointers_of_every_ending_share_one_note(tmp_path: Path, spec: str) -> None:
    names = [
        f"{number}.{ending}"
        for number, ending in enumerate(("png", "jpg", "webp", "tif", "bmp", "gif", "dng"))
    ]
    for name in names:
        (tmp_path / name).write_text(f"version {spec}\noid sha256:{'0' * 64}\nsize 9031\n")
    note = f"{', '.join(names[:5])} and 2 more: each {POINTER}"
    assert told(tmp_path).startswith(f'exemplars: no usable image in "{tmp_path}"; expected')
    assert told(tmp_path).endswith(f"\n  {note}")
    (tmp_path / "a.png").write_bytes(content(drawn(64, 64)))
    assert told(tmp_path) == note


# Transparency


def bmp(alpha: int, *, size: int = 8) -> bytes:
    """A BMP of version 4 with a channel of alpha, as screenshots have it; the first pixel has other colours."""
    pixels = bytearray(bytes((30, 60, 90, alpha)) * size**2)
    pixels[:3] = b"\xff\xff\xff"
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = (
        struct.pack("<IiiHHIIiiII", 108, size, size, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks + bytes(52)
    )
    return b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + header + pixels


def test_a_bmp_whose_alpha_is_0_everywhere_is_opaque() -> None:
    for alpha, colour, remarks in (
        (0, (90, 60, 30), ()),
        (255, (90, 60, 30), ()),
        (127, (173, 158, 143), ("has transparent pixels, laid over white",)),
    ):
        picture = decode(bmp(alpha), LIMITS)
        assert picture.image.getpixel((4, 2)) == colour
        assert picture.remarks == remarks


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_transparent_throughout_are_refused_by_name(kind: str) -> None:
    image = drawn().convert("RGBA")
    image.putalpha(0)
    with pytest.raises(UnreadableFileError, match="is transparent throughout; save it without transparency"):
        decode(content(image, kind), LIMITS)


# Masks, and what else differs from what a viewer shows


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("kind", ["masklabel", "condlabel", "MaskLabel"])
def test_masks_by_name_are_left_out_of_set_and_count(tmp_path: Path, ending: str, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(content(drawn(64, 64)))
    (tmp_path / f"a-{kind}.{ending}").write_bytes(content(drawn(64, 64, 5)))
    assert told(tmp_path) == f"masks of a training tool (-masklabel, -condlabel), left out: a-{kind}.{ending}"


def test_a_mask_by_its_pixels_is_flagged(tmp_path: Path) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    (tmp_path / "a.png").write_bytes(content(drawn(64, 64)))
    (tmp_path / "mask.jpg").write_bytes(content(mask, "JPEG"))
    assert told(tmp_path) == "mask.jpg: is nearly all black and white, as masks are; remove it if it is one"


def test_ink_without_a_profile_is_noted() -> None:
    for kind in ("JPEG", "TIFF"):
        (remark,) = decode(content(drawn().convert("CMYK"), kind), LIMITS).remarks
        assert (
            remark == "is CMYK without a usable profile, and viewers differ on its colours; save it as sRGB"
        )


def test_an_orientation_in_xmp_alone_turns_nothing_as_in_viewers() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for kind, options in (("JPEG", {}), ("WEBP", {"lossless": True})):
        assert decode(content(drawn(), kind, xmp=xmp, **options), LIMITS).image.size == (96, 64)


def test_sixteen_bits_of_which_0_is_white_are_inverted() -> None:
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    file = content(Image.fromarray(values), "TIFF")
    entry = struct.pack("<HHI", 262, 3, 1)
    inverted = file.replace(entry + b"\1", entry + b"\0")
    assert inverted != file
    assert np.array_equal(np.asarray(decode(inverted, LIMITS).image)[..., 0], (65535 - values) >> 8)


# The hub's cache


def hub_cache(folder: Path) -> Path:
    """A data set as Hugging Face's hub keeps it: a folder of links into another."""
    (folder / "datasets--a--b" / "blobs").mkdir(parents=True)
    snapshot = folder / "datasets--a--b" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for number in range(8):
        (folder / "datasets--a--b" / "blobs" / f"{number:064}").write_bytes(content(drawn(64, 64, number)))
        (snapshot / f"{number}.png").symlink_to(f"../../blobs/{number:064}")
    return snapshot


@pytest.mark.parametrize("captions", [False, True])
def test_links_of_the_hubs_cache_are_followed_into_allowed_folders_only(
    tmp_path: Path, *, captions: bool
) -> None:
    snapshot = hub_cache(tmp_path / "hub")
    if captions:
        (snapshot / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a cat"}\n')
    (tmp_path / "batch").mkdir()
    batch = tmp_path / "batch" / "batch.yaml"
    batch.write_text(f"prompts:\n  - prompt: a cat\n    exemplars: {snapshot}\n    preservation: none\n")

    def within(root: Path) -> Settings:
        return Settings(cache=tmp_path / "cache", storage="", tracking_uri=None, exemplar_roots=(root,))

    allowed = within(tmp_path / "hub")
    assert load_batch(batch, settings=allowed).prompts
    found = check_batch(batch, storage=tmp_path / "runs", settings=allowed).exemplars["a-cat"]
    assert len(found.training) + len(found.held_out) == 8
    assert not any("link" in note for note in found.notes)
    with pytest.raises(UserError) as refused:
        check_batch(batch, storage=tmp_path / "runs", settings=within(snapshot))
    message = str(refused.value)
    assert message.startswith(f"{batch}:3: exemplars: ")
    assert "CORRECTOR_EXEMPLAR_ROOTS, or copy the images themselves here" in message
    assert f'a symbolic link into "{tmp_path}/hub/datasets--a--b/blobs"' in message
    assert captions or message.count("symbolic link") == 1
