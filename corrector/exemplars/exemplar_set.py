"""Makes a set of exemplars from a folder of files: decodes them, drops duplicates, makes them squares, and splits.

PyTorch is imported when tensors are asked for: a set is checked without it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from corrector.errors import UserError
from corrector.exemplars.decoding import Picture, decode
from corrector.exemplars.duplicates import HASH_BITS, Fingerprint, fingerprint, hash_distance, nearly_same
from corrector.exemplars.files import (
    Limits,
    NotAnImageError,
    UnreadableFileError,
    ignored,
    listed,
    names,
    opened,
    printable,
    read,
)
from corrector.exemplars.fit import fit, fitted_side, lost_share, to_tensor
from corrector.exemplars.formats import ENDINGS, HEAD_BYTES, format_of
from corrector.exemplars.generation.reading import read_generations
from corrector.exemplars.provenance import ExemplarSource, Generation, SourceKind, used_digests
from corrector.prompts.failing_prompt import ExemplarFit

if TYPE_CHECKING:
    import torch

FEW_HELD_OUT = 4
"""Below this many held-out exemplars a note says that scores against them mean little."""

MAX_LOST = 0.2
"""Largest share of a picture that the crop cuts off, or that bars fill, without a warning."""

_NAMED = 5
_TWO_TONED = 0.95
"""Share of pixels that are black or white, within 16 of 255, from which a picture may be a mask."""


@dataclass(frozen=True, eq=False)
class Exemplar:
    """One good image.

    Attributes:
        path: Its file; the first by name if several have the same pixels.
        fitted: The picture, made square and resized by `fit`.
        source: Where it came from, what it cost, and who decided about it.
    """

    path: Path
    fitted: Image.Image
    source: ExemplarSource

    @cached_property
    def image(self) -> torch.Tensor:
        """`fitted` as float32 `[3, R, R]` in 0..1."""
        return to_tensor(self.fitted)

    @property
    def sha256(self) -> str:
        """SHA-256 of the decoded pixels before resizing; a PNG and a BMP of one picture have the same."""
        return self.source.sha256


@dataclass(frozen=True, eq=False)
class ExemplarSet:
    """The usable exemplars of a folder.

    Attributes:
        training: The exemplars that the fine-tune trains on; at least one.
        held_out: The exemplars that it does not train on; the images are compared with them.
        notes: What the set lacks, and which files were left out or differ from what a viewer shows; first a warning where
            much of the pictures is lost.
        fit: How the pictures became squares.
        dropped: The images that people, or a curation, dropped.
    """

    training: tuple[Exemplar, ...]
    held_out: tuple[Exemplar, ...]
    notes: tuple[str, ...]
    fit: ExemplarFit = "crop"
    dropped: tuple[ExemplarSource, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the pixels, their split, fit and resolution; names, sources and notes do not count."""
        content: dict[str, object] = {
            "resolution": self.training[0].fitted.width,
            "training": [exemplar.sha256 for exemplar in self.training],
            "held_out": [exemplar.sha256 for exemplar in self.held_out],
        }
        if self.fit != "crop":
            content["fit"] = self.fit
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def file_digests(self) -> dict[str, str]:
        """File name -> SHA-256 of the exemplar, training exemplars first."""
        return used_digests(self.sources)

    @property
    def sources(self) -> tuple[ExemplarSource, ...]:
        """Where each image came from: training, held out, then dropped."""
        return (*(each.source for each in (*self.training, *self.held_out)), *self.dropped)

    def training_images(self) -> torch.Tensor:
        """`[N, 3, R, R]` in 0..1, N at least 1."""
        import torch

        return torch.stack([exemplar.image for exemplar in self.training])

    def held_out_images(self) -> torch.Tensor:
        """`[K, 3, R, R]` in 0..1, K possibly 0."""
        import torch

        images = [exemplar.image for exemplar in self.held_out]
        return (
            torch.stack(images)
            if images
            else self.training[0].image.new_empty((0, *self.training[0].image.shape))
        )


@dataclass(frozen=True, eq=False)
class _Candidate:
    name: str
    size: tuple[int, int]
    fingerprint: Fingerprint
    fitted: Image.Image
    generation: Generation | None

    @property
    def pixels(self) -> int:
        """Width times height before it was made square."""
        return self.size[0] * self.size[1]


@dataclass(frozen=True, eq=False)
class _Folder:
    """What a folder holds: pictures, notes on them, and the files that are left out."""

    candidates: list[_Candidate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)

    def all_notes(self, fit: ExemplarFit) -> list[str]:
        """The warning, notes on single pictures, one on all files with the same problem, and on files of other kinds."""
        unusable = [
            f"{listed(names)}: {'each ' if len(names) > 1 else ''}{problem}"
            for problem, names in self.problems.items()
        ]
        others = ignored(self.others, [each.name for each in self.candidates])
        return [*_warning(self.candidates, fit), *self.notes, *unusable, *others]


def load_exemplars(
    folder: Path,
    *,
    resolution: int,
    held_out_fraction: float = 0.5,
    seed: int = 0,
    fit: ExemplarFit = "crop",
    limits: Limits | None = None,
    name: str | None = None,
    kind: SourceKind = "folder",
) -> ExemplarSet:
    """Reads every image directly in `folder` and splits the usable ones into training and held-out.

    The split depends on the pixels and `seed`, not on names or their order: the pictures are ranked by a hash of
    both, and the first `floor(n * held_out_fraction)` (at least one, unless the fraction is 0) are held out. Exact
    and near duplicates are dropped first, so that no held-out picture repeats a training picture; the one with most
    pixels stays. A file that cannot be used gets a note, and the others are still used; so does a picture of which training
    sees something else than a viewer shows, such as one that is cropped.

    Args:
        resolution: Width and height of the result in pixels.
        held_out_fraction: At least 0, less than 1. The default gives 12 and 12 of 24, because the distances
            that judge a correction need held-out exemplars as much as training needs its own.
        seed: Seed of the split.
        fit: How pictures that are not square become so.
        limits: Bounds on files and pixels; `Limits()` by default.
        name: What errors and sources call the folder; its path by default.
        kind: What it was made from.

    Raises:
        UserError: No such folder, or fewer usable images than the split needs (2; 1 with nothing held out).
        ValueError: `resolution` or `held_out_fraction` out of range.
    """
    if resolution < 1:
        raise ValueError(f"resolution {resolution}: expected at least 1")
    if not 0.0 <= held_out_fraction < 1.0:
        raise ValueError(f"held_out_fraction {held_out_fraction}: expected 0 <= fraction < 1")
    root, place = opened(folder), name or str(folder)
    found = _read(root, resolution, fit, limits or Limits())
    unique, dropped = _unique(found.candidates)
    notes = [*found.all_notes(fit), *dropped]
    _require_enough(place, len(unique), held_out_fraction, notes)
    ranked = sorted(
        unique, key=lambda item: hashlib.sha256(f"{seed}/{item.fingerprint.sha256}".encode()).hexdigest()
    )
    held = _held_out(len(ranked), held_out_fraction)
    if held_out_fraction > 0 and held < FEW_HELD_OUT:
        notes.append(
            f"only {held} held-out {'exemplar' if held == 1 else 'exemplars'} of {len(ranked)}: distances to "
            f"them mean little; add images until at least {FEW_HELD_OUT} are held out"
        )
    exemplars = [
        Exemplar(
            root / each.name,
            each.fitted,
            ExemplarSource(
                name=each.name,
                sha256=each.fingerprint.sha256,
                kind=kind,
                place=place,
                generation=each.generation,
            ),
        )
        for each in ranked
    ]
    return ExemplarSet(tuple(exemplars[held:]), tuple(exemplars[:held]), tuple(notes), fit)


def file_digests(folder: Path, *, limits: Limits | None = None) -> dict[str, str]:
    """File name -> SHA-256 of each file in `folder` whose first bytes are those of an image; nothing is decoded.

    Raises:
        UserError: No such folder.
    """
    bounds = limits or Limits()
    root = opened(folder)
    digests = {}
    for name in names(root, bounds)[0]:
        try:
            content = read(root, name, bounds)
        except UnreadableFileError:
            continue
        if format_of(content[:HEAD_BYTES]):
            digests[name] = hashlib.sha256(content).hexdigest()
    return digests


def _read(root: Path, resolution: int, how: ExemplarFit, limits: Limits) -> _Folder:
    generations, remarks = read_generations(root)
    found = _Folder(notes=list(remarks))
    chosen, beyond = names(root, limits)
    for name in chosen:
        try:
            content = read(root, name, limits)
            picture = decode(content, limits)
            if len(picture.image.getcolors(1) or ()) == 1:
                raise UnreadableFileError("is of one colour throughout; remove it")
        except NotAnImageError:
            found.others.append(name)
            continue
        except UnreadableFileError as problem:
            found.problems.setdefault(str(problem), []).append(name)
            continue
        found.notes.extend(
            f"{printable(name)}: {remark}" for remark in _remarks(name, picture, resolution, how)
        )
        image = picture.image
        made = generations.get(hashlib.sha256(content).hexdigest()) if generations else None
        fitted = fit(image, resolution, how)
        found.candidates.append(_Candidate(name, image.size, fingerprint(image), fitted, made))
    if beyond:
        found.notes.append(
            f"{beyond} more files were not looked at: {limits.files} are the limit; keep the best here"
        )
    return found


def _remarks(name: str, picture: Picture, resolution: int, how: ExemplarFit) -> Sequence[str]:
    """What the owner of a picture may not expect."""
    remarks = list(picture.remarks)
    endings = ENDINGS[picture.format]
    if not name.lower().endswith(endings):
        remarks.append(
            f"is a {picture.format} image by its content and read as one; rename it to {endings[0]}"
        )
    if _is_two_toned(picture.image):
        remarks.append("is nearly all black and white, as masks are; remove it if it is one")
    width, height = picture.image.size
    if (lost := lost_share((width, height))) >= 0.005:
        bars = f"bars in its edges' colours fill {lost:.0%} of the square"
        cropped = f"the crop to a square loses {lost:.0%}"
        remarks.append(f"is {width}x{height}; {cropped if how == 'crop' else bars}")
    if (side := fitted_side((width, height), how)) < resolution:
        remarks.append(
            f"is {width}x{height}, enlarged {resolution / side:.2f} times "
            f"for {resolution}; a larger original would be sharper"
        )
    return remarks


def _is_two_toned(image: Image.Image) -> bool:
    """Whether nearly all pixels are black or white, and some are of either."""
    small = image.resize((128, 128), Image.Resampling.NEAREST).convert("L")
    histogram = small.histogram()
    black, white = sum(histogram[:17]) / 128**2, sum(histogram[239:]) / 128**2
    return black + white >= _TWO_TONED and min(black, white) >= 1 - _TWO_TONED


def _warning(candidates: Sequence[_Candidate], how: ExemplarFit) -> list[str]:
    """A warning where more than `MAX_LOST` of pictures is lost to the crop, or filled by bars."""
    lost = [lost_share(each.size) for each in candidates]
    many = sum(share > MAX_LOST for share in lost)
    if not many:
        return []
    worst = f"{many} of {len(lost)} pictures, up to {max(lost):.0%}"
    if how == "pad":
        warning = f"bars fill more than {MAX_LOST:.0%} of {worst}, and training can learn them; crop the pictures to squares"
    else:
        warning = f"the crop loses more than {MAX_LOST:.0%} of {worst}; crop them to squares, or set exemplar_fit: pad"
    return [f"warning: {warning}"]


def _unique(candidates: Sequence[_Candidate]) -> tuple[list[_Candidate], list[str]]:
    """One of each group of duplicates, chosen by pixels; among exact duplicates, the first by name."""
    kept: list[_Candidate] = []
    notes: list[str] = []
    for item in sorted(candidates, key=lambda c: (-c.pixels, c.fingerprint.sha256, c.name)):
        twin = next((other for other in kept if nearly_same(item.fingerprint, other.fingerprint)), None)
        if twin is None:
            kept.append(item)
        elif twin.fingerprint.sha256 == item.fingerprint.sha256:
            notes.append(f"{printable(item.name)}: has the same pixels as {printable(twin.name)}; dropped")
        else:
            bits = hash_distance(item.fingerprint, twin.fingerprint)
            notes.append(
                f"{printable(item.name)}: is nearly the same picture as {printable(twin.name)} "
                f"({bits} of {HASH_BITS} hash bits differ); dropped"
            )
    return kept, sorted(notes)


def _held_out(count: int, fraction: float) -> int:
    if fraction == 0.0:
        return 0
    return min(count - 1, max(1, math.floor(count * fraction + 1e-9)))


def _require_enough(folder: str, usable: int, fraction: float, notes: Sequence[str]) -> None:
    needed = 2 if fraction > 0 else 1
    if usable >= needed:
        return
    what = "no usable image" if usable == 0 else f"only {usable} usable image where {needed} are needed"
    shown = "".join(f"\n  {note}" for note in notes[:_NAMED])
    more = f"\n  and {len(notes) - _NAMED} notes more" if len(notes) > _NAMED else ""
    expected = ", ".join(sorted(endings[0] for endings in ENDINGS.values()))
    raise UserError(f'exemplars: {what} in "{printable(folder)}"; expected {expected}{shown}{more}')
