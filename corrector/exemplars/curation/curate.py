"""curate_folder, curate_images: the verdicts on the images of a set and on the set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from corrector.evaluation.feature_memory import FeatureMemory
from corrector.exemplars.curation.checks import MIN_AGREEING, distances, image_reasons
from corrector.exemplars.curation.decisions import Decisions
from corrector.exemplars.curation.verdicts import Curation, Grade, ImageVerdict, Reason
from corrector.exemplars.decoding import decode
from corrector.exemplars.duplicates import Fingerprint, fingerprint, nearly_same
from corrector.exemplars.files import (
    Limits,
    NotAnImageError,
    UnreadableFileError,
    names,
    opened,
    read,
)
from corrector.exemplars.fit import fit, fitted_side, to_tensor
from corrector.prompts.failing_prompt import ExemplarFit

FEW, TOO_FEW = 12, 4
"""Below these numbers of used images a set is doubtful, and not effective."""
MAX_SPOILED = 0.1
"""Share of a set's different images that may be not effective before the set is."""
MIN_DIVERSITY = 0.42
"""Median distance of two images of a set, 0 to 2, averaged over the feature spaces. Renders of one figure in one pose and
place have less, renders of a figure in all poses more. Photographs of one pose have more, too."""


@dataclass(frozen=True, eq=False)
class _Decoded:
    name: str
    fingerprint: Fingerprint
    size: tuple[int, int]
    image: Tensor


def curate_folder(
    folder: Path,
    *,
    resolution: int,
    memory: FeatureMemory,
    fit: ExemplarFit = "crop",
    prompt: str | None = None,
    decisions: Decisions | None = None,
    limits: Limits | None = None,
) -> Curation:
    """The verdicts on every image file directly in `folder`.

    Args:
        resolution: Pixels a side, as the base draws them.
        memory: Extractors, and the judge of images where there is one.
        fit: How images that are not square become so.
        prompt: What the images should show.
        decisions: What people decided; a dropped image is not measured, and the others are not compared with it.

    Raises:
        UserError: No such folder.
    """
    limits, decisions = limits or Limits(), decisions or Decisions()
    unreadable, decoded = [], []
    for found in _files(opened(folder), resolution, fit, limits):
        if isinstance(found, _Decoded):
            decoded.append(found)
        else:
            unreadable.append(found)
    twins = _twins([each for each in decoded if each.fingerprint.sha256 not in decisions.dropped])
    reasons = {each.name: _size_reasons(each.size, resolution, fit) for each in decoded}
    copies = []
    for each in decoded:
        if twin := twins.get(each.name):
            reason = Reason("duplicate", "not effective", f"is nearly the same picture as {twin}")
            copies.append(ImageVerdict(each.name, each.fingerprint.sha256, each.image, (reason,)))
    rest = [each for each in decoded if each.name not in twins]
    return curate_images(
        {each.name: each.fingerprint.sha256 for each in rest},
        torch.stack([each.image for each in rest]) if rest else torch.empty(0, 3, resolution, resolution),
        memory=memory,
        prompt=prompt,
        decisions=decisions,
        known=reasons,
        others=[*unreadable, *copies],
    )


def curate_images(
    digests: Mapping[str, str],
    images: Tensor,
    *,
    memory: FeatureMemory,
    prompt: str | None = None,
    decisions: Decisions | None = None,
    known: Mapping[str, Sequence[Reason]] | None = None,
    others: Sequence[ImageVerdict] = (),
) -> Curation:
    """The verdicts on different images that are decoded already.

    Args:
        digests: SHA-256 of each image's decoded pixels by its file's name, in the order of `images`.
        images: `[N, 3, R, R]` in 0..1.
        memory, prompt, decisions: As for `curate_folder`; features come from and go to the memory's cache.
        known: What is known to be wrong with an image, by its name.
        others: Verdicts on further files, which are not measured: duplicates, and files that could not be read.
    """
    choices, known = (decisions or Decisions()).decisions, known or {}
    dropped = {digest for digest, each in choices.items() if each.decision == "drop"}
    measured = [row for row, digest in enumerate(digests.values()) if digest not in dropped]
    memory.recall(images[measured])
    found = dict(zip(measured, image_reasons(images[measured], memory, prompt), strict=True))
    verdicts = [
        ImageVerdict(
            name, digest, images[row], (*known.get(name, ()), *found.get(row, ())), choices.get(digest)
        )
        for row, (name, digest) in enumerate(digests.items())
    ]
    asked = memory.judge is not None and prompt is not None
    reasons = _set_reasons([verdicts[row] for row in measured], memory)
    memory.keep(images[measured])
    teaches, lacks = _words([each for each in verdicts if each.used], reasons, asked=asked)
    everything = sorted((*verdicts, *others), key=lambda each: each.name)
    return Curation(tuple(everything), tuple(reasons), tuple(teaches), tuple(lacks))


def _files(
    root: Path, resolution: int, how: ExemplarFit, limits: Limits
) -> Iterator[_Decoded | ImageVerdict]:
    for name in names(root, limits)[0]:
        try:
            image = decode(read(root, name, limits), limits).image
            if len(image.getcolors(1) or ()) == 1:
                raise UnreadableFileError("is of one colour throughout; remove it")
        except NotAnImageError:
            continue
        except UnreadableFileError as problem:
            yield ImageVerdict(name, None, None, (Reason("decoding", "not effective", str(problem)),))
        else:
            yield _Decoded(name, fingerprint(image), image.size, to_tensor(fit(image, resolution, how)))


def _twins(decoded: Sequence[_Decoded]) -> dict[str, str]:
    """Name of a duplicate -> name of the image that is kept, as `load_exemplars` chooses it."""
    kept: list[_Decoded] = []
    twins = {}
    order = sorted(
        decoded, key=lambda each: (-each.size[0] * each.size[1], each.fingerprint.sha256, each.name)
    )
    for each in order:
        twin = next((other for other in kept if nearly_same(each.fingerprint, other.fingerprint)), None)
        if twin is None:
            kept.append(each)
        else:
            twins[each.name] = twin.name
    return twins


def _size_reasons(size: tuple[int, int], resolution: int, how: ExemplarFit) -> tuple[Reason, ...]:
    side = fitted_side(size, how)
    if side >= resolution:
        return ()
    detail = f"is {size[0]}x{size[1]}, smaller than the {resolution} pixels a side that the base draws"
    return (Reason("size", "not effective" if 2 * side <= resolution else "doubtful", detail),)


def _set_reasons(measured: Sequence[ImageVerdict], memory: FeatureMemory) -> list[Reason]:
    """What is wrong with a set of different images, of which people dropped none."""
    used = [each for each in measured if each.used]
    reasons = []
    if len(used) < FEW:
        grade: Grade = "not effective" if len(used) < TOO_FEW else "doubtful"
        wanted = TOO_FEW if len(used) < TOO_FEW else FEW
        count = f"{len(used)} image{'' if len(used) == 1 else 's'}"
        reasons.append(Reason("number", grade, f"{count} can be used; at least {wanted} are needed"))
    spoiled = len(measured) - len(used)
    if spoiled > MAX_SPOILED * len(measured):
        detail = (
            f"{spoiled} of {len(measured)} different images are not effective; drop them, or decide otherwise"
        )
        reasons.append(Reason("images", "not effective", detail))
    wrong = sum(any(reason.check == "prompt" for reason in each.reasons) for each in measured)
    if wrong:
        detail = f"the judge calls {wrong} of {len(measured)} images wrong: they may show the anomaly itself"
        reasons.append(Reason("anomaly", "doubtful", detail))
    if len(used) > 1:
        images = torch.stack([each.image for each in used if each.image is not None])
        spread = [float(matrix.nanmedian()) for matrix in distances(images, memory)]
        if (diversity := sum(spread) / len(spread)) < MIN_DIVERSITY:
            detail = f"the images are much alike: two are {diversity:.2f} apart (median), less than {MIN_DIVERSITY}"
            reasons.append(Reason("diversity", "doubtful", detail))
    return reasons


def _words(
    used: Sequence[ImageVerdict], reasons: Sequence[Reason], *, asked: bool
) -> tuple[list[str], list[str]]:
    """What the set can teach, and what it cannot or what is not known of it."""
    found = {reason.check for reason in reasons}
    teaches, lacks = [], []
    if len(used) >= TOO_FEW:
        teaches.append(f"What the {len(used)} images have in common, in the places and poses that they show.")
    if "number" in found:
        lacks.append("Variety: with few images a fine-tune learns these images rather than the prompt.")
    if "diversity" in found:
        lacks.append("Other subjects, poses, views and backgrounds: the images show about one of each.")
    else:
        if len(used) >= FEW:
            teaches.append("That subject, pose, view or background may vary: the images differ clearly.")
        lacks.append(
            "Which of subject, pose, view and background vary: no check sees it. Photographs of one person in one "
            "pose differ more than renders of many poses in one place. Look at the images."
        )
    if not asked:
        lacks.append(
            "Not run, for want of a judge or a prompt: whether the images show the prompt, and whether the anomaly is "
            "among them. The other checks see neither a finger too many nor a wrong action that all images share."
        )
    if len(used) < MIN_AGREEING:
        lacks.append(f"Not run, with fewer than {MIN_AGREEING} images: agreement with the other images.")
    return teaches, lacks
