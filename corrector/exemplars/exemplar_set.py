"""Makes a set of exemplars from a folder of files: decodes them, drops duplicates, resizes, and splits."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from corrector.errors import UserError
from corrector.exemplars.decoding import Picture, decode
from corrector.exemplars.duplicates import HASH_BITS, Fingerprint, fingerprint, hash_distance, nearly_same
from corrector.exemplars.files import (
    Limits,
    NotAnImageError,
    UnreadableFileError,
    names,
    opened,
    printable,
    read,
)
from corrector.exemplars.fit import fit, to_tensor
from corrector.exemplars.formats import ENDINGS, HEAD_BYTES, format_of
from corrector.exemplars.generation.reading import read_generations
from corrector.exemplars.provenance import ExemplarSource, Generation, SourceKind, used_digests

FEW_HELD_OUT = 4
"""Below this many held-out exemplars a note says that scores against them mean little."""

_NAMED = 5


@dataclass(frozen=True, eq=False)
class Exemplar:
    """One good image.

    Attributes:
        path: Its file; the first by name if several have the same pixels.
        image: float32 `[3, R, R]` in 0..1, cropped and resized by `fit`.
        source: Where it came from, what it cost, and who decided about it.
    """

    path: Path
    image: torch.Tensor
    source: ExemplarSource

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
        notes: One sentence for each file that was left out or changed, and for what the set lacks.
        dropped: The images that people, or a curation, dropped.
    """

    training: tuple[Exemplar, ...]
    held_out: tuple[Exemplar, ...]
    notes: tuple[str, ...]
    dropped: tuple[ExemplarSource, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the pixels, their split and their resolution; names, sources and notes do not count."""
        content = {
            "resolution": self.training[0].image.shape[-1],
            "training": [exemplar.sha256 for exemplar in self.training],
            "held_out": [exemplar.sha256 for exemplar in self.held_out],
        }
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
        return torch.stack([exemplar.image for exemplar in self.training])

    def held_out_images(self) -> torch.Tensor:
        """`[K, 3, R, R]` in 0..1, K possibly 0."""
        images = [exemplar.image for exemplar in self.held_out]
        return (
            torch.stack(images)
            if images
            else self.training[0].image.new_empty((0, *self.training[0].image.shape))
        )


@dataclass(frozen=True, eq=False)
class _Candidate:
    name: str
    pixels: int
    fingerprint: Fingerprint
    fitted: Image.Image
    generation: Generation | None


def load_exemplars(
    folder: Path,
    *,
    resolution: int,
    held_out_fraction: float = 0.5,
    seed: int = 0,
    limits: Limits | None = None,
    name: str | None = None,
    kind: SourceKind = "folder",
) -> ExemplarSet:
    """Reads every image directly in `folder` and splits the usable ones into training and held-out.

    The split depends on the pixels and `seed`, not on names or their order: the pictures are ranked by a hash of
    both, and the first `floor(n * held_out_fraction)` (at least one, unless the fraction is 0) are held out. Exact
    and near duplicates are dropped first, so that no held-out picture repeats a training picture; the one with most
    pixels stays. A file that cannot be used gets a note, and the others are still used.

    Args:
        resolution: Width and height of the result in pixels.
        held_out_fraction: At least 0, less than 1. The default gives 12 and 12 of 24, because the distances
            that judge a correction need held-out exemplars as much as training needs its own.
        seed: Seed of the split.
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
    candidates, notes = _candidates(root, resolution, limits or Limits())
    unique, dropped = _unique(candidates)
    notes += dropped
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
            to_tensor(each.fitted),
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
    return ExemplarSet(tuple(exemplars[held:]), tuple(exemplars[:held]), tuple(notes))


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


def _candidates(root: Path, resolution: int, limits: Limits) -> tuple[list[_Candidate], list[str]]:
    found: list[_Candidate] = []
    generations, remarks = read_generations(root)
    notes = list(remarks)
    others: list[str] = []
    chosen, beyond = names(root, limits)
    for name in chosen:
        try:
            content = read(root, name, limits)
            picture = decode(content, limits)
            if len(picture.image.getcolors(1) or ()) == 1:
                raise UnreadableFileError("is of one colour throughout; remove it")
        except NotAnImageError:
            others.append(name)
            continue
        except UnreadableFileError as problem:
            notes.append(f"{printable(name)}: {problem}")
            continue
        notes += [f"{printable(name)}: {remark}" for remark in _remarks(name, picture, resolution)]
        image = picture.image
        made = generations.get(hashlib.sha256(content).hexdigest()) if generations else None
        pixels = image.width * image.height
        found.append(_Candidate(name, pixels, fingerprint(image), fit(image, resolution), made))
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        notes.append(f"not images, ignored: {', '.join(printable(name) for name in others[:_NAMED])}{more}")
    if beyond:
        notes.append(
            f"{beyond} more files were not looked at: {limits.files} are the limit; keep the best here"
        )
    return found, notes


def _remarks(name: str, picture: Picture, resolution: int) -> Sequence[str]:
    remarks = list(picture.remarks)
    endings = ENDINGS[picture.format]
    if not name.lower().endswith(endings):
        remarks.append(
            f"is a {picture.format} image by its content and read as one; rename it to {endings[0]}"
        )
    side = min(picture.image.size)
    if side < resolution:
        remarks.append(
            f"is {picture.image.width}x{picture.image.height}, enlarged {resolution / side:.2f} times "
            f"for {resolution}; a larger original would be sharper"
        )
    return remarks


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
