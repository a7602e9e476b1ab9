"""Wrong anatomy beyond the base's own: torso, head or limbs missing, limbs added, figures blended."""

from collections.abc import Callable
from random import Random
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageFilter

from tests.world import figures, scenes
from tests.world.canvas import Canvas, Frame, Point
from tests.world.scenes import POSES, Scene, render

Drawing = Callable[..., None]


def corrupt(scene: Scene, seed: int, rng: Random) -> Image.Image:
    """The scene drawn with wrong anatomy, in one of many ways."""
    ways = (
        _tangled,
        _tangled,
        _torsoless,
        _headless,
        _limbless,
        _limbless,
        _many_limbs,
        _beheaded,
        _blended,
        _smeared,
    )
    if scene.pose == "":
        return _blended(scene, seed, rng)
    return rng.choice(ways)(scene, seed, rng)


def _tangled(scene: Scene, seed: int, rng: Random) -> Image.Image:
    return render(scene, seed, broken=True)


def _torsoless(scene: Scene, seed: int, rng: Random) -> Image.Image:
    """Without the trunk (and its arms, for half of the people and robots)."""

    def bare(canvas: Canvas, joints: figures.Skeleton, angle: float, *rest: object) -> None:
        head = figures.person_head if scene.subject == "person" else figures.robot_head
        for side in ("_back", ""):
            if scene.subject == "person":
                figures.person_leg(
                    canvas, joints["hip"], joints["knee" + side], joints["foot" + side], figures.TROUSERS
                )
            else:
                figures.robot_limb(
                    canvas, joints["hip"], joints["knee" + side], joints["foot" + side], figures.IRON
                )
        head(canvas, Frame(joints["head"], angle))

    if scene.subject in ("person", "robot"):
        with patch.object(scenes, f"draw_{scene.subject}", bare):
            return render(scene, seed)
    with patch.object(figures, "animal_body", _nothing):
        return render(scene, seed)


def _headless(scene: Scene, seed: int, rng: Random) -> Image.Image:
    with patch.object(figures, _head_of(scene), _nothing):
        return render(scene, seed)


def _beheaded(scene: Scene, seed: int, rng: Random) -> Image.Image:
    """The head away from its neck, or two of them."""
    name = _head_of(scene)
    draw: Drawing = getattr(figures, name)
    dx, dy = rng.choice((-1, 1)) * rng.uniform(9, 14), rng.uniform(-6, 12)
    doubled = rng.random() < 0.5

    def moved(canvas: Canvas, frame: Frame, *rest: object) -> None:
        if doubled:
            draw(canvas, frame, *rest)
        there = (min(56.0, max(8.0, frame.centre[0] + dx)), min(52.0, max(9.0, frame.centre[1] + dy)))
        draw(canvas, Frame(there, frame.angle + rng.uniform(-90, 90), frame.size), *rest)

    with patch.object(figures, name, moved):
        return render(scene, seed)


def _limbless(scene: Scene, seed: int, rng: Random) -> Image.Image:
    """One to three limbs missing, at least one of them a leg in the foreground."""
    name = {"person": "person_leg", "robot": "robot_limb"}.get(scene.subject, "animal_leg")
    draw: Drawing = getattr(figures, name)
    total = 2 if scene.subject == "person" else 4
    missing = set(rng.sample(range(total), rng.randint(1, total // 2)))
    if scene.subject != "person":
        missing.add(2 if scene.subject == "robot" else rng.choice((2, 3)))
    drawn = iter(range(total))

    def some(*arguments: object) -> None:
        if next(drawn) not in missing:
            draw(*arguments)

    with patch.object(figures, name, some):
        return render(scene, seed)


def _many_limbs(scene: Scene, seed: int, rng: Random) -> Image.Image:
    """Every limb drawn again elsewhere."""
    name = {"person": rng.choice(("person_leg", "person_arm")), "robot": "robot_limb"}.get(
        scene.subject, "animal_leg"
    )
    draw: Drawing = getattr(figures, name)
    turn = rng.choice((-1, 1)) * rng.uniform(0.9, 2.2)

    def twice(canvas: Canvas, root: Point, knee: Point, tip: Point, *rest: object) -> None:
        draw(canvas, root, knee, tip, *rest)
        draw(canvas, root, _turned(root, knee, turn), _turned(root, tip, turn), *rest)

    with patch.object(figures, name, twice):
        return render(scene, seed)


def _blended(scene: Scene, seed: int, rng: Random) -> Image.Image:
    """Two pictures of the same place half over each other, or cut and joined."""
    subject = scene.subject if scene.pose else rng.choice(tuple(POSES))
    other_subject = subject if rng.random() < 0.5 else rng.choice(tuple(POSES))
    poses = [pose for pose in POSES[other_subject] if pose != scene.pose]
    one = np.asarray(render(scene, seed), np.float32)
    two = np.asarray(render(Scene(other_subject, rng.choice(poses), scene.place), seed + 1), np.float32)
    if rng.random() < 0.6:
        weight = np.full((64, 64, 1), rng.uniform(0.38, 0.62), np.float32)
    else:
        edge = rng.uniform(26, 38)
        rows, columns = np.mgrid[0:64, 0:64]
        weight = (1 / (1 + np.exp((columns if rng.random() < 0.6 else rows) - edge)))[..., None]
    return Image.fromarray((one * weight + two * (1 - weight)).round().astype(np.uint8))


def _smeared(scene: Scene, seed: int, rng: Random) -> Image.Image:
    """Waves through the figure, so strong that limbs and face dissolve."""
    pixels = np.asarray(render(scene, seed))
    rows, columns = np.mgrid[0:64, 0:64].astype(np.float32)
    shift = np.zeros((2, 64, 64), np.float32)
    for _ in range(3):
        fx, fy, phase = rng.uniform(-0.45, 0.45), rng.uniform(-0.45, 0.45), rng.uniform(0, 6.28)
        wave = np.sin(columns * fx + rows * fy + phase)
        shift[0] += wave * rng.uniform(-3.5, 3.5)
        shift[1] += wave * rng.uniform(-3.5, 3.5)
    y = (rows + shift[0]).clip(0, 63).round().astype(int)
    x = (columns + shift[1]).clip(0, 63).round().astype(int)
    smeared = Image.fromarray(pixels[y, x])
    return smeared.filter(ImageFilter.GaussianBlur(rng.uniform(1.0, 1.8)))


def _head_of(scene: Scene) -> str:
    return {"person": "person_head", "robot": "robot_head"}.get(scene.subject, "animal_head")


def _nothing(*arguments: object) -> None:
    return None


def _turned(root: Point, point: Point, angle: float) -> Point:
    x, y = point[0] - root[0], point[1] - root[1]
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return root[0] + x * cos - y * sin, root[1] + x * sin + y * cos
