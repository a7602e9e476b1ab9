"""The figures of the world: people, robots, dogs, cats and things, drawn from skeletons of joints."""

from random import Random

from tests.world.canvas import Canvas, Colour, Frame, Point, along, shade

COLOURS: dict[str, Colour] = {
    "red": (222, 44, 44),
    "blue": (44, 92, 222),
    "yellow": (248, 206, 36),
    "purple": (146, 62, 184),
}
SKIN: Colour = (242, 190, 150)
HAIR: Colour = (84, 50, 30)
TROUSERS: Colour = (46, 50, 74)
SHOES: Colour = (30, 28, 32)
STEEL: Colour = (168, 176, 188)
IRON: Colour = (104, 112, 126)
BROWN: Colour = (150, 98, 56)
ORANGE: Colour = (240, 148, 52)
INK: Colour = (28, 22, 26)

Skeleton = dict[str, Point]

BIPEDS: dict[str, Skeleton] = {
    "standing": {
        "head": (32, 17),
        "neck": (32, 26),
        "hip": (32, 39),
        "elbow_back": (24.5, 32),
        "hand_back": (22, 40),
        "elbow": (39.5, 32),
        "hand": (42, 40),
        "knee_back": (28.5, 47),
        "foot_back": (27.5, 56),
        "knee": (35.5, 47),
        "foot": (36.5, 56),
    },
    "sitting": {
        "head": (26, 25),
        "neck": (25, 34),
        "hip": (25, 49),
        "elbow_back": (17, 41),
        "hand_back": (14, 51),
        "elbow": (32, 40),
        "hand": (39, 41),
        "knee_back": (38, 44),
        "foot_back": (43, 55),
        "knee": (41, 51),
        "foot": (52, 54),
    },
    "lying": {
        "head": (12, 46),
        "neck": (20, 48),
        "hip": (35, 50),
        "elbow_back": (24, 42),
        "hand_back": (32, 43),
        "elbow": (24, 56),
        "hand": (33, 57),
        "knee_back": (45, 46),
        "foot_back": (54, 50),
        "knee": (46, 53),
        "foot": (57, 55),
    },
    "jumping": {
        "head": (32, 14),
        "neck": (32, 23),
        "hip": (32, 34),
        "elbow_back": (22.5, 22),
        "hand_back": (17, 12),
        "elbow": (41.5, 22),
        "hand": (47, 12),
        "knee_back": (23, 38),
        "foot_back": (19, 46),
        "knee": (41, 38),
        "foot": (45, 46),
    },
    "running": {
        "head": (38, 16),
        "neck": (35, 25),
        "hip": (30, 38),
        "elbow_back": (24, 29),
        "hand_back": (18, 35),
        "elbow": (43, 33),
        "hand": (50, 28),
        "knee_back": (23, 46),
        "foot_back": (12, 48),
        "knee": (41, 44),
        "foot": (43, 55),
    },
}
BIPED_ANGLES = {"standing": 0.0, "sitting": 0.0, "lying": -90.0, "jumping": 0.0, "running": 12.0}

QUADRUPEDS: dict[str, Skeleton] = {
    "standing": {
        "head": (47, 32),
        "shoulder": (40, 42),
        "rump": (22, 42),
        "tail": (16, 37),
        "tip": (13, 29),
        "knee_front_back": (42, 49),
        "foot_front_back": (43, 55),
        "knee_front": (37, 50),
        "foot_front": (37, 56),
        "knee_hind_back": (25, 49),
        "foot_hind_back": (26, 55),
        "knee_hind": (19, 50),
        "foot_hind": (19, 56),
    },
    "sitting": {
        "head": (41, 25),
        "shoulder": (36, 36),
        "rump": (27, 49),
        "tail": (17, 54),
        "tip": (11, 49),
        "knee_front_back": (41, 46),
        "foot_front_back": (42, 55),
        "knee_front": (36, 47),
        "foot_front": (36, 56),
        "knee_hind_back": (32, 52),
        "foot_hind_back": (31, 55),
        "knee_hind": (25, 52),
        "foot_hind": (31, 56),
    },
    "lying": {
        "head": (47, 43),
        "shoulder": (39, 50),
        "rump": (20, 51),
        "tail": (12, 54),
        "tip": (6, 50),
        "knee_front_back": (45, 54),
        "foot_front_back": (54, 54),
        "knee_front": (44, 56),
        "foot_front": (52, 57),
        "knee_hind_back": (22, 54),
        "foot_hind_back": (28, 56),
        "knee_hind": (18, 55),
        "foot_hind": (27, 57),
    },
    "running": {
        "head": (48, 28),
        "shoulder": (41, 37),
        "rump": (23, 38),
        "tail": (15, 33),
        "tip": (8, 26),
        "knee_front_back": (48, 42),
        "foot_front_back": (55, 45),
        "knee_front": (45, 45),
        "foot_front": (53, 51),
        "knee_hind_back": (15, 44),
        "foot_hind_back": (7, 47),
        "knee_hind": (18, 47),
        "foot_hind": (11, 54),
    },
}


def jittered(skeleton: Skeleton, rng: Random, amount: float = 0.6) -> Skeleton:
    """The skeleton with every joint moved by up to `amount` units."""
    return {
        name: (x + rng.uniform(-amount, amount), y + rng.uniform(-amount, amount))
        for name, (x, y) in skeleton.items()
    }


def draw_person(canvas: Canvas, joints: Skeleton, angle: float, shirt: Colour, looks: float = 0.0) -> None:
    """A person on the biped `joints`; head turned by `angle` degrees, eyes moved `looks` units sideways."""
    neck, hip = joints["neck"], joints["hip"]
    person_arm(
        canvas,
        along(along(neck, hip, 0.15), joints["elbow_back"], 0.3),
        joints["elbow_back"],
        joints["hand_back"],
        shade(shirt, 0.82),
    )
    person_leg(canvas, hip, joints["knee_back"], joints["foot_back"], shade(TROUSERS, 0.8))
    person_leg(canvas, hip, joints["knee"], joints["foot"], TROUSERS)
    canvas.stroke([along(neck, hip, 0.2), hip], 10.0, shirt)
    person_head(canvas, Frame(joints["head"], angle), looks)
    person_arm(
        canvas, along(along(neck, hip, 0.2), joints["elbow"], 0.35), joints["elbow"], joints["hand"], shirt
    )


def person_arm(canvas: Canvas, shoulder: Point, elbow: Point, hand: Point, shirt: Colour) -> None:
    """A sleeve with a hand."""
    canvas.disc(hand, 2.9, SKIN)
    canvas.stroke([shoulder, elbow, along(elbow, hand, 0.7)], 4.8, shirt)


def person_leg(canvas: Canvas, hip: Point, knee: Point, foot: Point, cloth: Colour) -> None:
    """A trouser leg with a shoe."""
    canvas.disc(foot, 3.0, SHOES)
    canvas.stroke([hip, knee, along(knee, foot, 0.8)], 5.6, cloth)


def person_head(canvas: Canvas, frame: Frame, looks: float = 0.0) -> None:
    """A round head with hair, two eyes and a mouth."""
    canvas.disc(frame.at(0, 1.2), 7.2 * frame.size, HAIR)
    canvas.disc(frame.at(looks * 0.4, -0.8), 6.2 * frame.size, SKIN, outlined=False)
    canvas.stroke(
        [frame.at(x, y) for x, y in ((-5.2, 3.2), (-1.5, 5.0), (2.5, 4.6), (5.2, 3.0))],
        3.4,
        HAIR,
        outlined=False,
    )
    for side in (-2.5, 2.5):
        canvas.disc(frame.at(side + looks, 0.0), 1.25 * frame.size, INK, outlined=False)
    mouth = [frame.at(x + looks, y) for x, y in ((-2.3, -3.3), (0, -4.3), (2.3, -3.3))]
    canvas.stroke(mouth, 1.2, (176, 44, 52), outlined=False)


def draw_robot(canvas: Canvas, joints: Skeleton, angle: float, looks: float = 0.0) -> None:
    """A robot on the biped `joints`."""
    neck, hip = joints["neck"], joints["hip"]
    robot_limb(canvas, along(neck, hip, 0.15), joints["elbow_back"], joints["hand_back"], shade(IRON, 0.85))
    robot_limb(canvas, hip, joints["knee_back"], joints["foot_back"], shade(IRON, 0.85))
    robot_limb(canvas, hip, joints["knee"], joints["foot"], IRON)
    canvas.stroke([joints["head"], neck], 3.4, IRON, square=True)
    robot_torso(canvas, neck, hip)
    robot_head(canvas, Frame(joints["head"], angle), looks)
    robot_limb(
        canvas, along(along(neck, hip, 0.2), joints["elbow"], 0.5), joints["elbow"], joints["hand"], IRON
    )


def robot_limb(canvas: Canvas, root: Point, joint: Point, end: Point, metal: Colour) -> None:
    """A boxy limb with a light block at its end."""
    canvas.stroke([root, joint, end], 4.6, metal, square=True)
    canvas.stroke([end, end], 5.4, shade(STEEL, 0.9), square=True)


def robot_torso(canvas: Canvas, neck: Point, hip: Point) -> None:
    """A steel box from neck to hip with two lamps."""
    top, bottom = along(neck, hip, -0.05), along(neck, hip, 1.15)
    dx, dy = bottom[0] - top[0], bottom[1] - top[1]
    length = (dx * dx + dy * dy) ** 0.5 or 1.0
    nx, ny = -dy / length * 6.4, dx / length * 6.4
    corners = [(top[0] + nx, top[1] + ny), (top[0] - nx, top[1] - ny)]
    canvas.polygon([*corners, (bottom[0] - nx, bottom[1] - ny), (bottom[0] + nx, bottom[1] + ny)], STEEL)
    canvas.disc(along(top, bottom, 0.35), 2.2, (70, 220, 120), outlined=False)
    canvas.disc(along(top, bottom, 0.75), 1.7, (250, 210, 70), outlined=False)


def robot_head(canvas: Canvas, frame: Frame, looks: float = 0.0) -> None:
    """A square head with an antenna and a red visor."""
    canvas.stroke([frame.at(0, 5), frame.at(0, 8.2)], 1.6, IRON, outlined=False)
    canvas.disc(frame.at(0, 8.6), 1.7, (240, 70, 60), outlined=False)
    canvas.polygon([frame.at(-6.6, 5.6), frame.at(6.6, 5.6), frame.at(6.6, -6), frame.at(-6.6, -6)], STEEL)
    visor = [frame.at(x + looks * 0.6, y) for x, y in ((-5.2, 3.4), (5.2, 3.4), (5.2, -0.4), (-5.2, -0.4))]
    canvas.polygon(visor, (226, 34, 40), outlined=False)
    canvas.stroke([frame.at(-3.4, -3.4), frame.at(3.4, -3.4)], 1.5, (70, 76, 88), outlined=False)


def draw_quadruped(canvas: Canvas, joints: Skeleton, kind: str) -> None:
    """A dog or a cat on the quadruped `joints`."""
    coat = BROWN if kind == "dog" else ORANGE
    shoulder, rump = joints["shoulder"], joints["rump"]
    animal_leg(canvas, rump, joints["knee_hind_back"], joints["foot_hind_back"], shade(coat, 0.74))
    animal_leg(canvas, shoulder, joints["knee_front_back"], joints["foot_front_back"], shade(coat, 0.74))
    animal_tail(canvas, rump, joints["tail"], joints["tip"], kind)
    animal_body(canvas, shoulder, rump, kind)
    animal_leg(canvas, rump, joints["knee_hind"], joints["foot_hind"], coat)
    animal_leg(canvas, shoulder, joints["knee_front"], joints["foot_front"], coat)
    canvas.stroke([shoulder, along(shoulder, joints["head"], 0.5)], 8.0, coat, outlined=False)
    animal_head(canvas, Frame(joints["head"]), kind)


def animal_body(canvas: Canvas, shoulder: Point, rump: Point, kind: str) -> None:
    """A trunk from rump to shoulder, striped for a cat."""
    coat = BROWN if kind == "dog" else ORANGE
    width = 11.5 if kind == "dog" else 10.0
    canvas.stroke([rump, shoulder], width, coat)
    if kind == "cat":
        dx, dy = shoulder[0] - rump[0], shoulder[1] - rump[1]
        length = (dx * dx + dy * dy) ** 0.5 or 1.0
        nx, ny = dy / length * 4.2, -dx / length * 4.2
        for t in (0.1, 0.42, 0.74):
            x, y = along(rump, shoulder, t)
            canvas.stroke([(x + nx, y + ny), (x, y)], 2.2, (176, 84, 20), outlined=False)


def animal_leg(canvas: Canvas, root: Point, knee: Point, foot: Point, coat: Colour) -> None:
    """A thick leg with a lighter paw."""
    canvas.stroke([root, knee, foot], 4.8, coat)
    canvas.disc(foot, 2.5, (250, 232, 206), squash=0.8, outlined=False)


def animal_tail(canvas: Canvas, rump: Point, middle: Point, tip: Point, kind: str) -> None:
    """A dog's short tail, or a cat's long one with a pale tip."""
    if kind == "dog":
        canvas.stroke([rump, middle, along(middle, tip, 0.6)], 4.0, BROWN)
        return
    canvas.stroke([rump, middle, tip, (tip[0] + 3.5, tip[1] - 4.5)], 3.4, ORANGE)
    canvas.disc((tip[0] + 3.5, tip[1] - 4.5), 1.9, (255, 244, 226), outlined=False)


def animal_head(canvas: Canvas, frame: Frame, kind: str) -> None:
    """A dog's head in profile with snout and floppy ear, or a cat's round face with pointed ears."""
    if kind == "dog":
        canvas.disc(frame.at(0, 0), 6.8 * frame.size, BROWN)
        canvas.stroke([frame.at(3.5, -2.2), frame.at(8.2, -2.4)], 5.2, (214, 170, 120))
        canvas.disc(frame.at(10.0, -1.0), 1.9, INK, outlined=False)
        canvas.disc(frame.at(2.6, 2.0), 1.5, INK, outlined=False)
        canvas.disc(frame.at(3.0, 2.4), 0.6, (255, 255, 255), outlined=False)
        canvas.stroke([frame.at(-3.2, 4.0), frame.at(-5.0, -2.0), frame.at(-4.6, -4.6)], 4.6, (88, 52, 28))
        return
    for side in (-1, 1):
        ear = [frame.at(side * 6.0, 1.5), frame.at(side * 5.8, 9.6), frame.at(side * 0.8, 5.2)]
        canvas.polygon(ear, ORANGE)
    canvas.disc(frame.at(0, 0), 6.8 * frame.size, ORANGE, squash=0.92)
    for stripe in (-2.0, 0.0, 2.0):
        canvas.stroke([frame.at(stripe, 5.2), frame.at(stripe, 3.4)], 1.1, (176, 84, 20), outlined=False)
    canvas.disc(frame.at(0, -2.9), 3.2 * frame.size, (255, 244, 226), squash=0.8, outlined=False)
    for eye in (-2.9, 2.9):
        canvas.disc(frame.at(eye, 0.8), 1.5, (40, 110, 50), outlined=False)
        canvas.disc(frame.at(eye, 0.8), 0.8, INK, outlined=False)
    canvas.disc(frame.at(0, -1.8), 1.0, (226, 96, 110), outlined=False)


def draw_tree(canvas: Canvas) -> None:
    """A leafy tree."""
    canvas.stroke([(32, 40), (32, 55)], 6.0, (122, 80, 46))
    for x, y, radius in ((23.5, 30, 9.0), (40.5, 30, 9.0), (32, 20, 11.0)):
        canvas.disc((x, y), radius, (34, 118, 54))
    for x, y, radius in ((24, 30, 8.0), (40, 30, 8.0), (32, 30, 8.0)):
        canvas.disc((x, y), radius, (34, 118, 54), outlined=False)
    for x, y in ((25, 27), (36, 19), (40, 33), (29, 35), (28, 16)):
        canvas.disc((x, y), 1.9, (226, 52, 48), outlined=False)


def draw_house(canvas: Canvas) -> None:
    """A house with a red roof, a door and two windows."""
    canvas.polygon([(17, 56), (17, 33), (47, 33), (47, 56)], (250, 236, 208))
    canvas.polygon([(12, 33), (32, 15), (52, 33)], (192, 58, 48))
    canvas.polygon([(28.5, 56), (28.5, 43), (36, 43), (36, 56)], (120, 74, 42))
    canvas.disc((34.4, 50), 0.8, (250, 214, 90), outlined=False)
    for x in (19.8, 38.6):
        canvas.polygon([(x, 45), (x, 38), (x + 6, 38), (x + 6, 45)], (120, 196, 240))


def draw_car(canvas: Canvas, paint: Colour) -> None:
    """A car in profile."""
    canvas.polygon([(18, 43), (23, 32), (41, 32), (48, 43)], paint)
    canvas.polygon([(21, 42), (25, 34.5), (31, 34.5), (31, 42)], (196, 230, 246), outlined=False)
    canvas.polygon([(33.5, 42), (33.5, 34.5), (40, 34.5), (44.5, 42)], (196, 230, 246), outlined=False)
    canvas.stroke([(12, 46), (53, 46)], 7.0, paint)
    canvas.disc((54.5, 45), 1.8, (255, 246, 170), outlined=False)
    for x in (20, 45):
        canvas.disc((x, 51.5), 5.0, (34, 34, 40))
        canvas.disc((x, 51.5), 2.2, (190, 194, 202), outlined=False)
