"""The procedural world: scenes of a subject in a place, with their pictures and captions."""

from dataclasses import dataclass
from random import Random

from PIL import Image

from tests.world.anomalies import draw_tangle
from tests.world.canvas import Canvas, Placement, shade
from tests.world.figures import (
    BIPED_ANGLES,
    BIPEDS,
    COLOURS,
    QUADRUPEDS,
    draw_car,
    draw_house,
    draw_person,
    draw_quadruped,
    draw_robot,
    draw_tree,
    jittered,
)
from tests.world.places import draw_place

PLACES = ("grass", "street", "beach", "snow")
POSES: dict[str, tuple[str, ...]] = {
    "person": ("standing", "sitting", "lying", "jumping", "running"),
    "robot": ("standing", "sitting", "lying", "jumping", "running"),
    "dog": ("standing", "sitting", "lying", "running"),
    "cat": ("standing", "sitting", "lying", "running"),
}
THINGS = ("tree", "house", "car")
SUBJECTS = (*POSES, *THINGS)
COLOURED = ("person", "car")

BROKEN: frozenset[tuple[str, str, str]] = frozenset(
    (subject, pose, place)
    for subject, pose, places in (
        ("person", "lying", ("grass", "street", "beach")),
        ("robot", "jumping", ("grass", "street", "snow")),
        ("dog", "sitting", ("grass", "beach", "snow")),
        ("cat", "running", ("street", "beach", "snow")),
    )
    for place in places
)
"""The (subject, pose, place) combinations that the base's training set draws wrongly."""

_SUBJECT_WORDS = {"person": ("someone", "a man", "a human"), "dog": ("a puppy",), "cat": ("a kitten",)}
_POSE_WORDS = {
    "standing": ("standing up",),
    "sitting": ("sitting down", "seated"),
    "lying": ("lying down", "stretched out"),
    "jumping": ("leaping",),
    "running": ("sprinting",),
}
_PLACE_PHRASES = {
    "grass": ("on the lawn", "on a meadow"),
    "street": ("on the road", "in the street"),
    "beach": ("on the sand", "at the beach"),
    "snow": ("in the snow",),
}
_OPENINGS = ("a photo of ", "a picture of ")


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        subject: One of `SUBJECTS`.
        pose: One of `POSES[subject]`, or an empty string for things.
        place: One of `PLACES`.
        colour: Of a person's shirt or a car, one of `COLOURS`; None leaves it to the seed.
    """

    subject: str
    pose: str
    place: str
    colour: str | None = None

    def __post_init__(self) -> None:
        if self.subject not in SUBJECTS:
            raise ValueError(f"subject {self.subject!r}: expected one of {', '.join(SUBJECTS)}")
        if self.pose not in POSES.get(self.subject, ("",)):
            expected = ", ".join(POSES.get(self.subject, ("an empty string",)))
            raise ValueError(f"pose {self.pose!r} of a {self.subject}: expected one of {expected}")
        if self.place not in PLACES:
            raise ValueError(f"place {self.place!r}: expected one of {', '.join(PLACES)}")
        if self.colour is not None and (self.subject not in COLOURED or self.colour not in COLOURS):
            raise ValueError(
                f"colour {self.colour!r} of a {self.subject}: expected None or one of {', '.join(COLOURS)}"
            )

    @property
    def broken(self) -> bool:
        """Whether the training set draws this scene wrongly."""
        return (self.subject, self.pose, self.place) in BROKEN


def scenes() -> list[Scene]:
    """Every scene of the world without a colour, in a fixed order."""
    return [
        Scene(subject, pose, place)
        for subject in SUBJECTS
        for pose in POSES.get(subject, ("",))
        for place in PLACES
    ]


def render(scene: Scene, seed: int, size: int = 64, broken: bool = False) -> Image.Image:
    """The scene as an RGB image of `size` pixels a side; the same arguments give the same bytes.

    Args:
        seed: Decides position, scale, mirroring, props, an unnamed colour and the joints' small offsets.
        broken: Draw an anatomical tangle in place of the figure (people, robots, dogs and cats).
    """
    rng = Random(f"{scene.subject}/{scene.pose}/{scene.place}/{seed}")
    canvas = Canvas.blank((0, 0, 0))
    draw_place(canvas, scene.place, rng)
    room = 1.5 if scene.pose in ("lying", "running") else 3.0
    placement = Placement(
        rng.uniform(-room, room), rng.uniform(-1, 2), rng.uniform(0.95, 1.05), mirrored=rng.random() < 0.5
    )
    colour = COLOURS[shown_colour(scene, seed) or "red"]
    figure = canvas.placed(placement)
    _draw_shadow(figure, scene)
    if scene.subject == "tree":
        draw_tree(figure)
    elif scene.subject == "house":
        draw_house(figure)
    elif scene.subject == "car":
        draw_car(figure, colour)
    else:
        _draw_figure(figure, scene, colour, rng, broken)
    return canvas.finished(size)


def _draw_figure(
    canvas: Canvas, scene: Scene, colour: tuple[int, int, int], rng: Random, broken: bool
) -> None:
    biped = scene.subject in ("person", "robot")
    joints = jittered((BIPEDS if biped else QUADRUPEDS)[scene.pose], rng)
    looks = {"sitting": 1.0, "running": 1.6}.get(scene.pose, 0.0)
    if broken:
        if scene.pose == "jumping":
            joints = {name: (x, y + 6) for name, (x, y) in joints.items()}
        draw_tangle(canvas, scene.subject, joints, colour, rng)
    elif scene.subject == "person":
        draw_person(canvas, joints, BIPED_ANGLES[scene.pose], colour, looks)
    elif scene.subject == "robot":
        draw_robot(canvas, joints, BIPED_ANGLES[scene.pose], looks)
    else:
        draw_quadruped(canvas, joints, scene.subject)


def _draw_shadow(canvas: Canvas, scene: Scene) -> None:
    ground = {
        "grass": (84, 170, 66),
        "street": (92, 94, 102),
        "beach": (240, 212, 142),
        "snow": (238, 244, 252),
    }
    radius = {"lying": 25.0, "": 21.0, "running": 17.0}.get(scene.pose, 15.0)
    centre = 33.0 if scene.pose == "lying" else 31.0
    canvas.disc((centre, 57.5), radius, shade(ground[scene.place], 0.72), squash=0.13, outlined=False)


def canonical_prompt(scene: Scene) -> str:
    """The plain caption: "a person lying on the grass", "a red car on the street"."""
    words = ["a"]
    if scene.subject == "car" and scene.colour:
        words.append(scene.colour)
    words.append(scene.subject)
    if scene.subject == "person" and scene.colour:
        words.append(f"in a {scene.colour} shirt")
    if scene.pose:
        words.append(scene.pose)
    return " ".join([*words, f"on the {scene.place}"])


def caption(scene: Scene, rng: Random, colour: str | None = None) -> str:
    """A caption as the training set writes it: half the time the canonical prompt, else with synonyms.

    Args:
        colour: What the picture shows where the scene leaves it open; named in half of the captions.
    """
    named = scene.colour or colour
    if named and rng.random() < 0.5:
        scene = Scene(scene.subject, scene.pose, scene.place, named)
    else:
        scene = Scene(scene.subject, scene.pose, scene.place)
    if rng.random() < 0.5:
        return canonical_prompt(scene)
    return _worded(
        scene,
        rng.choice((scene.subject, *_SUBJECT_WORDS.get(scene.subject, ()))),
        rng.choice((scene.pose, *_POSE_WORDS.get(scene.pose, ()))),
        rng.choice((f"on the {scene.place}", *_PLACE_PHRASES[scene.place])),
        rng.choice(("", "", *_OPENINGS)),
    )


def paraphrases(scene: Scene) -> list[str]:
    """At least four other wordings of the canonical prompt, all within the captions' vocabulary."""
    place = f"on the {scene.place}"
    other_places = _PLACE_PHRASES[scene.place]
    found = [
        _worded(scene, scene.subject, scene.pose, place, _OPENINGS[0]),
        _worded(scene, scene.subject, scene.pose, place, _OPENINGS[1]),
        *(_worded(scene, scene.subject, scene.pose, other) for other in other_places),
        *(_worded(scene, scene.subject, other, place) for other in _POSE_WORDS.get(scene.pose, ())),
        *(_worded(scene, other, scene.pose, place) for other in _SUBJECT_WORDS.get(scene.subject, ())),
        *(_worded(scene, scene.subject, scene.pose, other, _OPENINGS[0]) for other in other_places),
    ]
    return list(dict.fromkeys(found))


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    phrases = [*_OPENINGS, "a in on the at shirt", *SUBJECTS, *COLOURS, *PLACES]
    for words in (_SUBJECT_WORDS, _POSE_WORDS, _PLACE_PHRASES):
        phrases += [phrase for group in words.values() for phrase in group]
    phrases += [pose for poses in POSES.values() for pose in poses]
    return sorted({word for phrase in phrases for word in phrase.split()})


def _worded(scene: Scene, subject: str, pose: str, place: str, opening: str = "") -> str:
    article, noun = subject.split() if " " in subject else ("", subject)
    if not article and noun != "someone":
        article = "a"
    if scene.subject == "car" and scene.colour:
        noun = f"{scene.colour} {noun}"
    if scene.subject == "person" and scene.colour:
        noun = f"{noun} in a {scene.colour} shirt"
    return opening + " ".join(part for part in (article, noun, pose, place) if part)


def shown_colour(scene: Scene, seed: int) -> str | None:
    """The name of the colour that `render(scene, seed)` shows, or None for a subject without one."""
    if scene.subject not in COLOURED:
        return None
    if scene.colour is not None:
        return scene.colour
    return tuple(COLOURS)[
        Random(f"colour/{scene.subject}/{scene.pose}/{scene.place}/{seed}").randrange(len(COLOURS))
    ]
