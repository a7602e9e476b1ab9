"""A supersampled drawing surface: thick outlined strokes and shapes, coordinates in 64 x 64 units."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

UNITS = 64
SUPERSAMPLING = 4


def shade(colour: Colour, factor: float) -> Colour:
    """The colour scaled by `factor`, clipped to 0..255."""
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in colour)
    return red, green, blue


def along(start: Point, end: Point, t: float) -> Point:
    """The point at fraction `t` of the way from `start` to `end`."""
    return start[0] + (end[0] - start[0]) * t, start[1] + (end[1] - start[1]) * t


@dataclass(frozen=True)
class Placement:
    """Where a figure stands: offset in units, scale about the middle of its feet, mirrored or not."""

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    mirrored: bool = False
    pivot: Point = (32.0, 56.0)

    def apply(self, point: Point) -> Point:
        """The point in scene units, from figure units."""
        x = (point[0] - self.pivot[0]) * self.scale
        y = (point[1] - self.pivot[1]) * self.scale
        return self.pivot[0] + (-x if self.mirrored else x) + self.dx, self.pivot[1] + y + self.dy


@dataclass
class Canvas:
    """Draws on an image of `UNITS * SUPERSAMPLING` pixels a side; all coordinates and widths are in units."""

    image: Image.Image
    placement: Placement = field(default_factory=Placement)
    outline: float = 0.7

    def __post_init__(self) -> None:
        self._draw = ImageDraw.Draw(self.image)

    @classmethod
    def blank(cls, colour: Colour) -> "Canvas":
        """A canvas filled with one colour."""
        side = UNITS * SUPERSAMPLING
        return cls(Image.new("RGB", (side, side), colour))

    def placed(self, placement: Placement) -> "Canvas":
        """The same surface under another placement."""
        return Canvas(self.image, placement, self.outline)

    def stroke(
        self,
        points: Sequence[Point],
        width: float,
        colour: Colour,
        *,
        outlined: bool = True,
        square: bool = False,
    ) -> None:
        """A polyline of `width` units with round (or square) joints, over a darker outline."""
        if outlined:
            self._line(points, width + 2 * self.outline, shade(colour, 0.5), square)
        self._line(points, width, colour, square)

    def polygon(self, points: Sequence[Point], colour: Colour, *, outlined: bool = True) -> None:
        """A filled polygon, its outline drawn outside it."""
        if outlined:
            self._line([*points, points[0]], 2 * self.outline, shade(colour, 0.5), False)
        self._draw.polygon([self._pixel(point) for point in points], fill=colour)

    def disc(
        self, centre: Point, radius: float, colour: Colour, *, squash: float = 1.0, outlined: bool = True
    ) -> None:
        """An upright ellipse of horizontal `radius` and vertical `radius * squash`."""
        x, y = self._pixel(centre)
        unit = SUPERSAMPLING * self.placement.scale
        if outlined:
            a, b = (radius + self.outline) * unit, (radius * squash + self.outline) * unit
            self._draw.ellipse((x - a, y - b, x + a, y + b), fill=shade(colour, 0.5))
        a, b = radius * unit, radius * squash * unit
        self._draw.ellipse((x - a, y - b, x + a, y + b), fill=colour)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """An upright filled rectangle without outline."""
        (x0, y0), (x1, y1) = self._pixel((left, top)), self._pixel((right, bottom))
        self._draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), fill=colour)

    def finished(self, size: int) -> Image.Image:
        """The image averaged down to `size` pixels a side."""
        factor = self.image.width // size
        if factor * size == self.image.width:
            return self.image.reduce(factor)
        return self.image.resize((size, size), Image.Resampling.LANCZOS)

    def _pixel(self, point: Point) -> Point:
        x, y = self.placement.apply(point)
        return x * SUPERSAMPLING, y * SUPERSAMPLING

    def _line(self, points: Sequence[Point], width: float, colour: Colour, square: bool) -> None:
        pixels = [self._pixel(point) for point in points]
        half = width * SUPERSAMPLING * self.placement.scale / 2
        self._draw.line(pixels, fill=colour, width=max(1, round(2 * half)))
        for x, y in pixels:
            box = (x - half, y - half, x + half, y + half)
            if square:
                self._draw.rectangle(box, fill=colour)
            else:
                self._draw.ellipse(box, fill=colour)


@dataclass(frozen=True)
class Frame:
    """A turned and scaled frame for the parts of a head: x to its right, y up from its centre."""

    centre: Point
    angle: float = 0.0
    size: float = 1.0

    def at(self, x: float, y: float) -> Point:
        """The point (x, y) of the head in figure units; `angle` is clockwise, in degrees."""
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        x, y = x * self.size, -y * self.size
        return self.centre[0] + x * cos - y * sin, self.centre[1] + x * sin + y * cos
