"""Makes surveys: pairs of images from records, copied under random names without anything that tells their origin."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from corrector.errors import UserError
from corrector.exemplars.fit import fit
from corrector.files import publish_folder, staging_folder
from corrector.preference.links import write_secret
from corrector.preference.survey import Arm, Survey, SurveyPair
from corrector.preference.survey_folder import IMAGES_FOLDER, SURVEY_FILE
from corrector.record.correction_record import CorrectionRecord

_GRID = 8
"""Patches a side of an image whose patches are shuffled."""


@dataclass(frozen=True)
class ImagePair:
    """Two image files of one prompt and seed: of arm "a" and of arm "b".

    Attributes:
        exemplars: Files of right images of the prompt, where there are any.
    """

    prompt: str
    seed: int
    a: Path
    b: Path
    exemplars: tuple[Path, ...] = ()


@dataclass(frozen=True)
class SurveyPlan:
    """What a survey is to be.

    Attributes:
        arms, adapters: As in Survey.
        pairs: Number of pairs that count, at most; they are drawn evenly from the prompts.
        checks: Number of attention checks: an exemplar beside the same with its patches shuffled. (A model's own image may be
            wrong, and a careful rater would answer "both bad".)
    """

    id: str
    title: str
    arms: dict[Arm, str]
    seed: int
    pairs: int = 40
    checks: int = 4
    repeats: float = 0.1
    adapters: Mapping[Arm, str] = field(default_factory=dict)


def pairs_of_record(folder: Path, record: CorrectionRecord) -> list[ImagePair]:
    """The base's and the corrected model's image of every prompt and seed of a record; none of a failed one.

    Raises:
        UserError: Images are missing.
    """
    images = CorrectionRecord.images(folder)
    if not len(images.before) == len(images.after) == len(record.seeds):
        raise UserError(
            f"{folder}: has {len(images.before)} and {len(images.after)} images for {len(record.seeds)} seeds; "
            "restore the record, or correct the prompt again"
        )
    return [
        ImagePair(*each, exemplars=images.held_out or images.exemplars)
        for each in zip(record.sampled_prompts, record.seeds, images.before, images.after, strict=True)
    ]


def pairs_of_versions(a: Sequence[ImagePair], b: Sequence[ImagePair]) -> list[ImagePair]:
    """The corrected images of two versions, each from its record's pairs, that have the same prompt and seed."""
    of_a = {(pair.prompt, pair.seed): pair.b for pair in a}
    return [replace(pair, a=of_a[pair.prompt, pair.seed]) for pair in b if (pair.prompt, pair.seed) in of_a]


def make_survey(found: Sequence[ImagePair], destination: Path, plan: SurveyPlan) -> Survey:
    """Write the folder of a new survey, whole or not at all.

    Raises:
        UserError: There are no pairs, an image cannot be read, or `destination` is there already.
    """
    if not found:
        raise UserError(
            f"{destination}: no pairs to show: no prompt was drawn with the same seed by both; "
            "compare versions whose evaluations have the same seeds, or a version with the base"
        )
    random = Random(plan.seed)
    chosen = _evenly(found, plan.pairs, random)
    unused = [pair for pair in found if pair not in chosen] or chosen
    try:
        with staging_folder(destination) as staging:
            images = staging / IMAGES_FOLDER
            images.mkdir()
            pairs = [_copied(pair, images) for pair in chosen]
            checks = [_check(random.choice(unused), images, random) for _ in range(plan.checks)]
            survey = Survey(
                id=plan.id,
                title=plan.title,
                arms=plan.arms,
                adapters=dict(plan.adapters),
                pairs=(*pairs, *checks),
                repeats=plan.repeats,
                seed=plan.seed,
                created=datetime.now(UTC),
            )
            (staging / SURVEY_FILE).write_text(survey.model_dump_json(indent=2) + "\n", encoding="utf-8")
            write_secret(staging)
            publish_folder(staging, destination)
    except FileExistsError:
        raise UserError(f"{destination}: is there already; name a new folder") from None
    except OSError as error:
        raise UserError(f"{error.filename or destination}: {error.strerror or error}") from error
    return survey


def _evenly(found: Sequence[ImagePair], most: int, random: Random) -> list[ImagePair]:
    """At most so many pairs, in turn from each prompt."""
    by_prompt: dict[str, list[ImagePair]] = {}
    for pair in random.sample(found, len(found)):
        by_prompt.setdefault(pair.prompt, []).append(pair)
    longest = max(map(len, by_prompt.values()))
    turns = [pairs[turn] for turn in range(longest) for pairs in by_prompt.values() if turn < len(pairs)]
    return turns[:most]


def _copied(pair: ImagePair, images: Path) -> SurveyPair:
    a, b = read_pixels(pair.a), read_pixels(pair.b)
    if a.size != b.size:
        # Another size would tell the arms apart.
        side = min(*a.size, *b.size)
        a, b = fit(a, side), fit(b, side)
    return SurveyPair(
        id=secrets.token_hex(8), prompt=pair.prompt, seed=pair.seed, a=_save(a, images), b=_save(b, images)
    )


def _check(pair: ImagePair, images: Path, random: Random) -> SurveyPair:
    whole = read_pixels(random.choice(pair.exemplars or (pair.a, pair.b)))
    expected: Arm = random.choice(("a", "b"))
    shown = {expected: whole, "b" if expected == "a" else "a": _shuffled(whole, random)}
    return SurveyPair(
        id=secrets.token_hex(8),
        prompt=pair.prompt,
        a=_save(shown["a"], images),
        b=_save(shown["b"], images),
        expected=expected,
    )


def read_pixels(path: Path) -> Image.Image:
    """An image's pixels alone, as RGB.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            return Image.fromarray(np.asarray(image.convert("RGB")))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image: {error}") from error


def _save(image: Image.Image, images: Path) -> str:
    name = secrets.token_hex(8)
    image.save(images / f"{name}.png")
    return name


def _shuffled(image: Image.Image, random: Random) -> Image.Image:
    """The image with its patches in another order; a margin that no patch fits into stays."""
    pixels = np.array(image)
    height, width = pixels.shape[0] // _GRID, pixels.shape[1] // _GRID
    boxes = [
        np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(_GRID)
        for column in range(_GRID)
    ]
    patches = [pixels[box].copy() for box in boxes]
    for box, patch in zip(boxes, _deranged(patches, random), strict=True):
        pixels[box] = patch
    return Image.fromarray(pixels)


def _deranged(patches: Iterable[np.ndarray], random: Random) -> list[np.ndarray]:
    """In a random cyclic order, so that no patch stays in its place."""
    mixed = list(patches)
    for place in range(len(mixed) - 1, 0, -1):  # Sattolo's algorithm
        other = random.randrange(place)
        mixed[place], mixed[other] = mixed[other], mixed[place]
    return mixed
