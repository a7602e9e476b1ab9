"""FeatureMemory: what the networks say of an image, kept by its pixels, so that none sees an image twice.

A correction is looked at several times while it is drawn, and scored in another process. Between versions of a prompt the
base's images and the exemplars are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from corrector.base import ContentCache, content_key
from corrector.evaluation.features import FeatureExtractor, OpenNSFWFeatures, default_extractors, opennsfw
from corrector.evaluation.verdicts import ImageJudge

_DIGEST_BYTES = 16
_DIGESTS = " digests"


class FeatureMemory:
    """Features, safety scores and a judge's verdicts of images `[N, 3, H, W]` in 0..1 that are rounded to 8 bits.

    Attributes:
        extractors: Names of the feature spaces.
        judge: The judge of images, or None.
    """

    def __init__(
        self,
        extractors: Sequence[FeatureExtractor] | None = None,
        judge: ImageJudge | None = None,
        cache: ContentCache | None = None,
    ) -> None:
        """`extractors` None: the two that come with the package. `cache` has what `keep` stored in other processes."""
        chosen = tuple(default_extractors() if extractors is None else extractors)
        if not chosen:
            raise ValueError("no feature extractor: nothing could be measured")
        if any(each.name == OpenNSFWFeatures.name and each is not opennsfw() for each in chosen):
            raise ValueError(f"{OpenNSFWFeatures.name} is the name of the package's own extractor")
        self.extractors = tuple(extractor.name for extractor in chosen)
        self.judge = judge
        self._by_name = {extractor.name: extractor for extractor in chosen}
        self._cache = None if cache is None else cache.images
        self._known: dict[str, dict[bytes, Tensor]] = {}
        self._kept: dict[str, int] = {}

    def features(self, name: str, images: Tensor) -> Tensor:
        """Features `[N, d]` in the extractor of this name."""
        if self._by_name[name] is opennsfw():
            return self._opennsfw(images)[0]
        return self._rows(name, images, self._by_name[name])

    def unsafe(self, images: Tensor) -> Tensor:
        """The probability `[N]` that an image is unsafe for work."""
        return self._opennsfw(images)[1]

    def right(self, images: Tensor, prompts: Sequence[str]) -> tuple[bool, ...]:
        """The judge's verdict on each image as a picture of its prompt."""
        judge = self.judge
        assert judge is not None
        found = torch.empty(len(images))
        for prompt in dict.fromkeys(prompts):
            places = [place for place, each in enumerate(prompts) if each == prompt]

            def verdicts(some: Tensor, prompt: str = prompt) -> Tensor:
                return torch.tensor(judge(some, [prompt] * len(some)), dtype=torch.float32)[:, None]

            found[places] = self._rows(f"{judge.name}: {prompt}", images[places], verdicts)[:, 0]
        return tuple(bool(right) for right in found)

    def recall(self, images: Tensor) -> None:
        """Read what another process kept of these `images` together."""
        if self._cache is None:
            return
        key = _cache_key(_digests(images))
        self._kept[key] = self._add(self._cache.get(key) or {})

    def keep(self, images: Tensor) -> None:
        """Store what is known of `images` in one entry of the cache, unless `recall` found as much there."""
        if self._cache is None:
            return
        digests = _digests(images)
        key = _cache_key(digests)
        known = {
            name: {digest: rows[digest] for digest in digests if digest in rows}
            for name, rows in self._known.items()
        }
        count = sum(map(len, known.values()))
        if count > self._kept.get(key, 0):
            self._cache.put(key, _packed(known))
            self._kept[key] = count

    def save(self, path: Path) -> None:
        """Write everything that is known into a safetensors file."""
        save_file(_packed(self._known), path)

    def load(self, path: Path) -> None:
        """Read a file that `save` wrote."""
        self._add(load_file(path))

    def _add(self, packed: Mapping[str, Tensor]) -> int:
        """Take what `_packed` made; returns the number of its rows."""
        count = 0
        for name in [name for name in packed if not name.endswith(_DIGESTS)]:
            digests = packed[f"{name}{_DIGESTS}"].view(-1, _DIGEST_BYTES)
            known = self._known.setdefault(name, {})
            known |= zip((bytes(digest.tolist()) for digest in digests), packed[name], strict=True)
            count += len(digests)
        return count

    def _opennsfw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scorer = opennsfw()

        def both(some: Tensor) -> Tensor:
            features, unsafe = scorer.features_and_safety(some)
            return torch.cat([features, unsafe[:, None]], dim=1)

        rows = self._rows(scorer.name, images, both)
        return rows[:, :-1], rows[:, -1]

    def _rows(self, name: str, images: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute` of each image, which is called for unknown images only."""
        if not len(images):
            return compute(images)
        known, digests = self._known.setdefault(name, {}), _digests(images)
        unknown = {digest: place for place, digest in enumerate(digests) if digest not in known}
        if unknown:
            known |= zip(unknown, compute(images[list(unknown.values())]), strict=True)
        return torch.stack([known[digest] for digest in digests])


def _digests(images: Tensor) -> list[bytes]:
    pixels = images.mul(255).round().to(torch.uint8).contiguous()
    shape = str(tuple(images.shape[1:])).encode()
    return [
        hashlib.blake2b(shape + image.numpy().tobytes(), digest_size=_DIGEST_BYTES).digest()
        for image in pixels
    ]


def _packed(known: Mapping[str, Mapping[bytes, Tensor]]) -> dict[str, Tensor]:
    """The rows of each name as one tensor, and the digests of their images as another."""
    tensors = {}
    for name, rows in known.items():
        if rows:
            tensors[f"{name}{_DIGESTS}"] = torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8)
            tensors[name] = torch.stack(list(rows.values()))
    return tensors


def _cache_key(digests: Sequence[bytes]) -> str:
    return content_key("features", *(digest.hex() for digest in digests))
