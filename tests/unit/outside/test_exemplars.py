"""Image files of other people: each kind is read as a viewer shows it, or named with what to do."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corrector.errors import UserError
from corrector.exemplars import Limits, load_exemplars
from corrector.exemplars.decoding import decode
from corrector.exemplars.files import UnreadableFileError
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
