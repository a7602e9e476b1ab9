"""Pictures that the tests here share: a drawn one without symmetry, and the paper's where present."""

import io

from PIL import Image, ImageDraw

from tests.support.paths import PAPER


def paper_pictures() -> list[Image.Image]:
    """All of the paper's images; none where the folder is absent."""
    return [Image.open(path).convert("RGB") for path in sorted(PAPER.glob("*/*")) if path.suffix != ".md"]


def drawn(width: int = 96, height: int = 64, number: int = 0) -> Image.Image:
    """An RGB picture with a different colour in every corner; another number, clearly another picture."""
    image = Image.new("RGB", (width, height), (90, 150, 210))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 3, height // 4), fill=(220, 40, 30))
    draw.rectangle((width // 2, 0, width, height // 3), fill=(240, 200, 40))
    draw.ellipse((width // 8, height // 2, width // 2, height - 4), fill=(30, 120, 60))
    draw.rectangle((width - width // 5, height - height // 3, width, height), fill=(60, 30, 90))
    for step in range(5):
        if (number * 11 + 3) >> step & 1:
            left = (step * 37 + number * 13) % (width - width // 4)
            top = (step * 23 + number * 29) % (height - height // 4)
            draw.rectangle(
                (left, top, left + width // 4, top + height // 4),
                fill=(step * 50, 255 - number * 9 % 255, 20),
            )
    return image


def content(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
