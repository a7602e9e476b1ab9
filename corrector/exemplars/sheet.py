"""Contact sheets: many pictures in one image."""

from collections.abc import Iterator, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from corrector.exemplars.fit import to_image

PADDING = 10
_PAPER = (250, 250, 248)
_INK = (32, 32, 36)
_MAX_LINES = 3


def contact_sheet(
    images: torch.Tensor | Sequence[torch.Tensor | Image.Image],
    *,
    columns: int,
    labels: Sequence[str] | None = None,
    scale: int = 1,
) -> Image.Image:
    """The pictures in rows of `columns`, each with its label underneath.

    Args:
        images: `[N, 3, H, W]` in 0..1, or a sequence of `[3, H, W]` tensors and Pillow images of any sizes.
        columns: Pictures in a row, at least 1; fewer pictures make a narrower sheet.
        labels: One for each picture, wrapped to at most three lines of its width; newlines are kept.
        scale: Whole-number enlargement with hard pixel edges, so that small renders show as they are.

    Raises:
        ValueError: No images, another number of labels, or columns or scale below 1.
    """
    pictures = [
        to_image(image) if isinstance(image, torch.Tensor) else image.convert("RGB") for image in images
    ]
    if not pictures or columns < 1 or scale < 1:
        raise ValueError(
            f"{len(pictures)} images, {columns} columns, scale {scale}: expected at least one of each"
        )
    if labels is not None and len(labels) != len(pictures):
        raise ValueError(f"{len(labels)} labels for {len(pictures)} images")
    width = scale * max(picture.width for picture in pictures)
    height = scale * max(picture.height for picture in pictures)
    font = ImageFont.load_default(size=max(11, min(22, width // 12)))
    wrapped = [_wrapped(label, font, width) for label in labels or ()]
    line_height = int(sum(font.getmetrics())) if isinstance(font, ImageFont.FreeTypeFont) else 12
    caption = max((len(lines) for lines in wrapped), default=0) * line_height + (4 if wrapped else 0)
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    step_x, step_y = width + PADDING, height + caption + PADDING
    sheet = Image.new("RGB", (columns * step_x + PADDING, rows * step_y + PADDING), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        left, top = PADDING + index % columns * step_x, PADDING + index // columns * step_y
        enlarged = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left + (width - enlarged.width) // 2, top + (height - enlarged.height) // 2))
        for number, line in enumerate(wrapped[index] if wrapped else ()):
            draw.text((left, top + height + 4 + number * line_height), line, fill=_INK, font=font)
    return sheet


def _wrapped(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """`label` in at most `_MAX_LINES` lines of `width` pixels; words break only where one is too long."""
    lines: list[str] = []
    for paragraph in label.splitlines():
        lines.append("")
        for word in (piece for whole in paragraph.split() for piece in _pieces(whole, font, width)):
            joined = f"{lines[-1]} {word}".strip()
            if not lines[-1] or font.getlength(joined) <= width:
                lines[-1] = joined
            else:
                lines.append(word)
    if len(lines) > _MAX_LINES:
        last = lines[_MAX_LINES - 1]
        while last and font.getlength(last + "…") > width:
            last = last[:-1]
        lines = [*lines[: _MAX_LINES - 1], last + "…"]
    return lines


def _pieces(word: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> Iterator[str]:
    start = 0
    for end in range(1, len(word) + 1):
        if end - start > 1 and font.getlength(word[start:end]) > width:
            yield word[start : end - 1]
            start = end - 1
    yield word[start:]
