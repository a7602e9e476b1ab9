"""The four places of the world: grass, street, beach and snow, each with sky, ground and props."""

from random import Random

from tests.world.canvas import Canvas, Colour, shade

HORIZON = 34.0


def draw_place(canvas: Canvas, place: str, rng: Random) -> None:
    """Fill the canvas with the place; `rng` moves its props a little."""
    {"grass": _grass, "street": _street, "beach": _beach, "snow": _snow}[place](canvas, rng)


def _sky(canvas: Canvas, colour: Colour) -> None:
    canvas.rectangle(-1, -1, 65, HORIZON, colour)


def _grass(canvas: Canvas, rng: Random) -> None:
    _sky(canvas, (150, 208, 250))
    sun = 9 + rng.uniform(-2, 2)
    canvas.disc((sun, 9), 4.5, (255, 226, 90), outlined=False)
    cloud = 52 + rng.uniform(-5, 4)
    for dx, radius in ((-4, 3.0), (0, 4.0), (4, 3.0)):
        canvas.disc((cloud + dx, 10), radius, (255, 255, 255), squash=0.75, outlined=False)
    hill = rng.uniform(-6, 6)
    canvas.disc((14 + hill, 38), 24, (112, 186, 96), squash=0.45, outlined=False)
    canvas.disc((52 + hill, 38), 22, (98, 174, 88), squash=0.38, outlined=False)
    canvas.rectangle(-1, HORIZON, 65, 65, (84, 170, 66))
    for x, y in ((6, 41), (57, 44), (10, 60), (44, 61), (59, 57)):
        _tuft(canvas, x + rng.uniform(-2, 2), y)
    for x, y in ((4, 52), (26, 61), (60, 38)):
        canvas.disc((x + rng.uniform(-2, 2), y), 1.4, (255, 246, 150), outlined=False)


def _street(canvas: Canvas, rng: Random) -> None:
    _sky(canvas, (204, 214, 226))
    shift = rng.uniform(-4, 4)
    blocks = ((-8, 16, 8, (178, 112, 94)), (16, 35, 14, (146, 150, 170)), (35, 52, 5, (196, 160, 118)))
    for left, right, top, colour in (*blocks, (52, 76, 11, (160, 122, 134))):
        canvas.rectangle(left + shift, top, right + shift, HORIZON, colour)
        for x in range(left + 3, right - 3, 6):
            for y in range(top + 3, 28, 7):
                canvas.rectangle(x + shift, y, x + 3 + shift, y + 4, shade(colour, 0.68))
    canvas.rectangle(-1, HORIZON - 2, 65, HORIZON + 4, (186, 184, 180))
    canvas.rectangle(-1, HORIZON + 4, 65, 65, (92, 94, 102))
    canvas.rectangle(-1, HORIZON + 4, 65, HORIZON + 5, (140, 140, 142))
    dash = rng.uniform(-4, 4)
    for x in (-10, 10, 30, 50, 70):
        canvas.rectangle(x + dash, 60, x + 11 + dash, 62, (246, 240, 214))


def _beach(canvas: Canvas, rng: Random) -> None:
    _sky(canvas, (132, 214, 246))
    sun = 54 + rng.uniform(-2, 2)
    canvas.disc((sun, 9), 5, (255, 204, 70), outlined=False)
    canvas.rectangle(-1, 24, 65, HORIZON + 2, (24, 122, 196))
    for x, y in ((10, 27), (40, 28), (24, 31), (56, 31)):
        drift = rng.uniform(-3, 3)
        canvas.stroke([(x - 3 + drift, y), (x + 3 + drift, y)], 0.8, (150, 206, 240), outlined=False)
    sail = 8 + rng.uniform(-2, 3)
    canvas.polygon([(sail, 15), (sail, 24), (sail + 6, 24)], (255, 255, 255), outlined=False)
    canvas.stroke([(sail - 2, 25), (sail + 6, 25)], 1.6, (150, 60, 50), outlined=False)
    canvas.rectangle(-1, HORIZON + 1, 65, HORIZON + 3, (232, 248, 252))
    canvas.rectangle(-1, HORIZON + 3, 65, 65, (240, 212, 142))
    for x, y in ((6, 44), (58, 42), (12, 60), (34, 62), (54, 60)):
        canvas.disc((x + rng.uniform(-3, 3), y), 1.0, (204, 166, 96), outlined=False)


def _snow(canvas: Canvas, rng: Random) -> None:
    _sky(canvas, (158, 178, 208))
    shift = rng.uniform(-3, 3)
    for x, top in ((5, 14), (17, 20), (48, 19), (59, 12)):
        _fir(canvas, x + shift, top)
    canvas.rectangle(-1, HORIZON, 65, 65, (238, 244, 252))
    canvas.disc((14 + shift, HORIZON + 1), 22, (238, 244, 252), squash=0.12, outlined=False)
    canvas.disc((52 - shift, HORIZON + 9), 14, (214, 226, 242), squash=0.1, outlined=False)
    canvas.disc((12 - shift, 61), 12, (214, 226, 242), squash=0.1, outlined=False)
    for x, y in ((12, 5), (30, 9), (44, 4), (25, 24), (38, 27), (53, 30), (8, 27)):
        canvas.disc((x + rng.uniform(-2, 2), y + rng.uniform(-2, 2)), 0.9, (255, 255, 255), outlined=False)


def _tuft(canvas: Canvas, x: float, y: float) -> None:
    canvas.stroke([(x - 1.5, y - 2.5), (x, y), (x + 1.5, y - 2.5)], 1.0, (48, 124, 42), outlined=False)


def _fir(canvas: Canvas, x: float, top: float) -> None:
    for step in range(3):
        y = top + step * (HORIZON - top) / 3.4
        half = 2.6 + 1.5 * step
        base = y + (HORIZON - top) / 2.4
        canvas.polygon([(x, y), (x - half, base), (x + half, base)], (38, 92, 82), outlined=False)
    canvas.polygon([(x, top), (x - 1.6, top + 4), (x + 1.6, top + 4)], (250, 252, 255), outlined=False)
