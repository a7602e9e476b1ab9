"""Decoding: what every kind of file looks like, and the one sentence for those that cannot be read."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageCms, ImageOps

from corrector.exemplars.decoding import BACKGROUND, MAX_JPEG_SCANS, decode
from corrector.exemplars.files import Limits, UnreadableFileError
from tests.support.pictures import content, drawn

LIMITS = Limits()
SHARP: dict[str, object] = {"quality": 95, "subsampling": 0}
BEST: dict[str, dict[str, object]] = {"WEBP": {"lossless": True}, "JPEG": SHARP}


def difference(first: Image.Image, second: Image.Image) -> int:
    """The largest difference of any value."""
    assert first.size == second.size
    return int(np.abs(np.asarray(first, dtype=np.int16) - np.asarray(second, dtype=np.int16)).max())


def mean_difference(first: Image.Image, second: Image.Image) -> float:
    return float(np.abs(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)).mean())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_every_format_gives_the_picture(kind: str) -> None:
    picture = decode(content(drawn(), kind, **BEST.get(kind, {})), LIMITS)
    assert picture.format == kind
    assert picture.image.mode == "RGB"
    assert picture.remarks == ()
    assert mean_difference(picture.image, drawn()) < (2 if kind in ("JPEG", "GIF") else 1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = content(drawn(), kind, exif=exif, **BEST.get(kind, {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
    assert upright.size == ((64, 96) if orientation >= 5 else (96, 64))
    assert difference(decode(file, LIMITS).image, upright) == 0


def test_a_damaged_exif_block_costs_the_turn_but_not_the_picture() -> None:
    file = content(drawn(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x12\x01\x03")
    assert difference(decode(file, LIMITS).image, drawn()) == 0


def test_a_cmyk_jpeg_with_adobes_marker_is_inverted() -> None:
    inks = drawn().convert("CMYK")
    file = content(inks, "JPEG", quality=95)
    assert b"Adobe" in file
    assert mean_difference(decode(file, LIMITS).image, drawn()) < 3


def test_a_cmyk_jpeg_without_adobes_marker_is_not() -> None:
    file = content(ImageChops.invert(drawn().convert("CMYK")), "JPEG", quality=95)
    start = file.index(b"\xff\xee")
    length = int.from_bytes(file[start + 2 : start + 4], "big")
    plain = file[:start] + file[start + 2 + length :]
    assert b"Adobe" not in plain
    assert mean_difference(decode(plain, LIMITS).image, drawn()) < 3


def test_a_cmyk_tiff_gives_the_picture() -> None:
    assert difference(decode(content(drawn().convert("CMYK"), "TIFF"), LIMITS).image, drawn()) == 0


def test_sixteen_bit_grey_keeps_its_upper_byte_as_sixteen_bit_colour_does() -> None:
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    grey = decode(content(Image.fromarray(values), "PNG"), LIMITS).image
    colour = decode(sixteen_bit_png(np.stack([values] * 3, axis=-1)), LIMITS).image
    expected = np.stack([values >> 8] * 3, axis=-1)
    assert np.array_equal(np.asarray(grey), expected)
    assert np.array_equal(np.asarray(colour), expected)


def test_sixteen_bit_grey_with_a_transparent_value_shows_the_background_there() -> None:
    values = np.full((8, 8), 40_000, dtype=np.uint16)
    values[:4] = 1_000
    decoded = decode(sixteen_bit_png(values[..., None], transparent=1_000), LIMITS)
    assert np.array_equal(np.asarray(decoded.image)[:4], np.broadcast_to(BACKGROUND, (4, 8, 3)))
    assert np.array_equal(np.asarray(decoded.image)[4:], np.full((4, 8, 3), 40_000 >> 8))


def sixteen_bit_png(values: np.ndarray, transparent: int | None = None) -> bytes:
    """A PNG of `[H, W, 1 or 3]` uint16 values, which Pillow reads but does not write for colour."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    clear = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    body = chunk(b"IHDR", header) + clear + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_over_the_background(kind: str) -> None:
    image = drawn().convert("RGBA")
    alpha = Image.linear_gradient("L").resize(image.size)
    image.putalpha(alpha)
    expected = Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert("RGB")
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    picture = decode(content(image, kind, **options), LIMITS)
    assert difference(picture.image, expected) <= 1
    assert picture.remarks == ("has transparent pixels, laid over white",)


def test_an_opaque_alpha_channel_is_no_remark() -> None:
    picture = decode(content(drawn().convert("RGBA")), LIMITS)
    assert picture.remarks == ()
    assert difference(picture.image, drawn()) == 0


def test_a_palette_with_a_transparent_entry_shows_the_background_there() -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([10, 20, 30, 200, 40, 60, 0, 0, 0])
    palette.paste(0, (0, 0, 4, 8))
    image = decode(content(palette, "PNG", transparency=0), LIMITS).image
    assert image.getpixel((1, 1)) == BACKGROUND
    assert image.getpixel((6, 1)) == (200, 40, 60)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_modes_with_few_colours_give_their_colours(mode: str) -> None:
    image = drawn().convert(mode)
    assert difference(decode(content(image), LIMITS).image, image.convert("RGB")) == 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_used(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    second = Image.new("RGB", drawn().size, (0, 0, 0))
    picture = decode(content(drawn(), kind, save_all=True, append_images=[second], **options), LIMITS)
    assert picture.remarks == ("holds several pictures; the first is used",)
    assert mean_difference(picture.image, drawn()) < 3


def swapped_profile() -> bytes:
    """sRGB with its red and green primaries exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"tmp0").replace(b"gXYZ", b"rXYZ").replace(b"tmp0", b"gXYZ")
    return profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    red, green, blue = drawn().split()
    image = decode(content(drawn(), "PNG", icc_profile=swapped_profile()), LIMITS).image
    assert difference(image, Image.merge("RGB", (green, red, blue))) <= 2


def test_a_profile_and_transparency_go_together() -> None:
    image = drawn().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 128))
    decoded = decode(content(image, "PNG", icc_profile=swapped_profile()), LIMITS).image
    red, green, blue = drawn().split()
    swapped = Image.merge("RGB", (green, red, blue))
    assert difference(decoded, Image.blend(Image.new("RGB", image.size, BACKGROUND), swapped, 128 / 255)) <= 3


@pytest.mark.parametrize("profile", [b"no profile at all", b"\0" * 200])
def test_a_damaged_or_unfitting_profile_is_left_alone(profile: bytes) -> None:
    assert difference(decode(content(drawn(), "PNG", icc_profile=profile), LIMITS).image, drawn()) == 0
    grey = drawn().convert("L")
    decoded = decode(content(grey, "PNG", icc_profile=swapped_profile()), LIMITS).image
    assert difference(decoded, grey.convert("RGB")) == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_cut_off_is_refused_with_a_remedy(kind: str) -> None:
    file = content(drawn(400, 300), kind)
    with pytest.raises(UnreadableFileError, match=f"is a .*{kind} image.*; copy it again"):
        decode(file[: len(file) * 2 // 3], LIMITS)


def test_a_file_with_only_its_first_bytes_is_refused() -> None:
    with pytest.raises(UnreadableFileError, match="begins like a PNG image but its header is damaged"):
        decode(content(drawn())[:12], LIMITS)


def claiming(width: int, height: int) -> bytes:
    """A PNG of 1x1 whose header claims another size."""
    file = sixteen_bit_png(np.zeros((1, 1, 1), dtype=np.uint16))
    header = file[12:16] + struct.pack(">II", width, height) + file[24:29]
    return file[:12] + header + struct.pack(">I", zlib.crc32(header)) + file[33:]


def test_pixels_are_bounded_before_they_are_decoded() -> None:
    refusal = "is 12000x12000, 144 megapixels, over the limit of 64; save it smaller"
    with pytest.raises(UnreadableFileError, match=refusal):
        decode(claiming(12_000, 12_000), LIMITS)


def test_a_bomb_beyond_pillows_own_limit_is_refused_alike() -> None:
    with pytest.raises(UnreadableFileError, match="has far more than 64 megapixels; save it smaller"):
        decode(claiming(60_000, 60_000), LIMITS)


def test_a_frame_larger_than_its_animation_is_bounded_too() -> None:
    file = bytearray(content(Image.new("P", (1, 1)), "GIF"))
    frame = file.index(b"\x2c", 13 + 3 * 2 ** ((file[10] & 7) + 1))
    file[frame + 5 : frame + 9] = struct.pack("<HH", 9_000, 9_000)
    with pytest.raises(UnreadableFileError, match="is 9000x9000, 81 megapixels"):
        decode(bytes(file), LIMITS)


def test_a_picture_at_the_limit_is_decoded_and_one_above_is_not() -> None:
    file = content(drawn(96, 64))
    assert decode(file, Limits(pixels=96 * 64)).image.size == (96, 64)
    with pytest.raises(UnreadableFileError, match="over the limit"):
        decode(file, Limits(pixels=96 * 64 - 1))


def test_a_jpeg_of_thousands_of_scans_is_refused_and_a_progressive_one_is_not() -> None:
    file = content(drawn(), "JPEG", progressive=True, **SHARP)
    assert mean_difference(decode(file, LIMITS).image, drawn()) < 5
    last_scan = file[file.rindex(b"\xff\xda") : -2]
    with pytest.raises(UnreadableFileError, match=f"more than {MAX_JPEG_SCANS} scans"):
        decode(file[:-2] + last_scan * MAX_JPEG_SCANS + file[-2:], LIMITS)


def test_scan_markers_within_segments_and_after_the_end_do_not_count() -> None:
    noise = b"\xff\xda" * (2 * MAX_JPEG_SCANS)
    file = content(drawn(), "JPEG", comment=noise, **SHARP) + noise
    assert mean_difference(decode(file, LIMITS).image, drawn()) < 5


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x1cftypavif", "an AVIF image"),
        (b"\0\0\0\x18ftypheic", "a HEIC image"),
        (b"8BPS\0\1", "a Photoshop image"),
        (b"<svg xmlns=", "an SVG image"),
        (b"\xff\x0a", "a JPEG XL image"),
    ],
)
def test_formats_that_are_not_read_are_named(start: bytes, name: str) -> None:
    with pytest.raises(UnreadableFileError, match=f"is {name}, which is not read; save it as PNG or JPEG"):
        decode(start + b"\0" * 100, LIMITS)


@pytest.mark.parametrize(
    "file", [b"<html>404</html>", b"\0" * 100, b"BMW is not a bitmap, though it begins so"]
)
def test_content_that_is_no_image_is_refused(file: bytes) -> None:
    with pytest.raises(UnreadableFileError, match="holds no image; replace or remove it"):
        decode(file, LIMITS)


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_pixels_without_a_defined_brightness_are_refused(mode: str) -> None:
    image = Image.new("LAB", (8, 8)) if mode == "LAB" else drawn().convert("L").convert(mode)
    with pytest.raises(UnreadableFileError, match=rf"has pixels \({mode}\)"):
        decode(content(image, "TIFF"), LIMITS)
