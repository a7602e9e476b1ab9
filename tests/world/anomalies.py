"""Figures drawn wrongly on purpose: the anatomy that the embedded base is taught to get wrong."""

import math
from random import Random

from tests.world.canvas import Canvas, Colour, Frame, Point, along, shade
from tests.world.figures import (
    BROWN,
    IRON,
    ORANGE,
    TROUSERS,
    Skeleton,
    animal_head,
    animal_leg,
    animal_tail,
    person_arm,
    person_head,
    person_leg,
    robot_head,
    robot_limb,
    robot_torso,
)


def draw_tangle(canvas: Canvas, subject: str, joints: Skeleton, shirt: Colour, rng: Random) -> None:
    """A tangle in place of the figure: a bent trunk, limbs from anywhere on it, a wrong head or two.

    Args:
        subject: Person, robot, dog or cat; decides materials and heads.
        joints: The skeleton of the right figure; the tangle grows around its trunk.
        shirt: Colour of a person's shirt.
    """
    top = joints["neck"] if "neck" in joints else joints["shoulder"]
    bottom = joints["hip"] if "hip" in joints else joints["rump"]
    middle = along(top, bottom, 0.5)
    reach = 10.0 if subject == "robot" else 9.0
    bend = (middle[0] + rng.uniform(-4, 4), middle[1] + rng.choice((-1, 1)) * rng.uniform(4, 7))
    trunk = [top, bend, bottom]
    limbs = rng.randint(6, 8)
    turn = rng.uniform(0, 360)
    for index in range(limbs):
        _limb(canvas, subject, trunk, turn + 360 * index / limbs + rng.uniform(-15, 15), reach, shirt, rng)
    _trunk(canvas, subject, trunk, shirt)
    for _ in range(2):
        _limb(canvas, subject, trunk, rng.uniform(0, 360), reach, shirt, rng)
    _heads(canvas, subject, joints["head"], trunk, rng)


def _limb(
    canvas: Canvas, subject: str, trunk: list[Point], angle: float, reach: float, shirt: Colour, rng: Random
) -> None:
    start, end = rng.choice(((trunk[0], trunk[1]), (trunk[1], trunk[2])))
    root = along(start, end, rng.random())
    knee = _step(root, angle, reach * rng.uniform(0.9, 1.1))
    tip = _step(knee, angle + rng.choice((-1, 1)) * rng.uniform(20, 80), reach)
    if subject == "person":
        draw, colour = (person_arm, shirt) if rng.random() < 0.5 else (person_leg, TROUSERS)
        draw(canvas, root, knee, tip, colour)
    elif subject == "robot":
        robot_limb(canvas, root, knee, tip, shade(IRON, rng.choice((0.85, 1.0))))
    elif rng.random() < 0.25:
        animal_tail(canvas, root, knee, tip, subject)
    else:
        coat = BROWN if subject == "dog" else ORANGE
        animal_leg(canvas, root, knee, tip, shade(coat, rng.choice((0.74, 1.0))))


def _trunk(canvas: Canvas, subject: str, trunk: list[Point], shirt: Colour) -> None:
    if subject == "person":
        canvas.stroke(trunk, 8.5, shirt)
    elif subject == "robot":
        robot_torso(canvas, trunk[0], trunk[1])
        robot_torso(canvas, trunk[1], trunk[2])
    else:
        canvas.stroke(trunk, 9.0, BROWN if subject == "dog" else ORANGE)


def _heads(canvas: Canvas, subject: str, head: Point, trunk: list[Point], rng: Random) -> None:
    kind = rng.choice(("doubled", "split", "detached"))
    places: list[Point]
    if kind == "doubled":
        places = [(head[0] - 4, head[1] - 3), (head[0] + 5, head[1] + 4)]
    elif kind == "split":
        places = [head, trunk[2]]
    else:
        away = _step(head, rng.uniform(200, 340), rng.uniform(8, 12))
        places = [(min(56.0, max(8.0, away[0])), min(52.0, max(9.0, away[1])))]
    for place in places:
        frame = Frame(place, rng.uniform(0, 360), 0.92)
        if subject == "person":
            person_head(canvas, frame)
        elif subject == "robot":
            robot_head(canvas, frame)
        else:
            animal_head(canvas, frame, subject)


def _step(point: Point, angle: float, length: float) -> Point:
    x = point[0] + length * math.cos(math.radians(angle))
    y = point[1] + length * math.sin(math.radians(angle))
    return min(61.0, max(3.0, x)), min(60.0, max(4.0, y))
