"""Head: a classifier of one adapter, for prompts that mean the same as its registered prompt.

First a prompt is compared with the registered ones word by word (`word_comparison`); it is refused if it contradicts them all.
Otherwise it gets a logit: linear in the MiniLM embedding, minus a penalty for every word that the lexicon does not know.
Training and calibration prompts are generated from the registered ones, with different synonyms and templates. A quarter of
the calibration prompts are read with a lexicon of the registered prompts' words only, as if other words were unknown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from corrector.files import write_atomically
from corrector.prompts.variations import Split, hard_negatives, paraphrases
from corrector.prompts.variations.prompt_parsing import Reading, read
from serving.router.calibration import REFUSED, Calibration, Vector, calibrate, fit_logistic, platt
from serving.router.embedding import WEIGHTS_SHA256, Embedder
from serving.router.word_comparison import Comparison, closest
from serving.settings import HeadSettings

_FORMAT = 1


@dataclass(frozen=True)
class RegisteredTexts:
    """The prompts that were registered with an adapter."""

    prompt: str
    paraphrases: tuple[str, ...] = ()
    guard_prompts: tuple[str, ...] = ()

    @property
    def same(self) -> tuple[str, ...]:
        """The prompt and its paraphrases, which have the same meaning."""
        return (self.prompt, *self.paraphrases)

    def digest(self, settings: HeadSettings) -> str:
        """SHA-256 of a head's settings and training data, except other adapters' prompts."""
        content = [_FORMAT, WEIGHTS_SHA256, asdict(self), settings.model_dump()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head; a prompt is accepted where its logit is at least `calibration.threshold`.

    Attributes:
        weights: `[384]`, for the embedding.
        doubts: `[3]`, penalties per word for the counts of `Comparison.doubts`; at most 0.
        calibration: None where no threshold reaches the precision; such a head accepts nothing.
    """

    weights: NDArray[np.float32]
    bias: float
    doubts: tuple[float, ...]
    calibration: Calibration | None

    def penalty(self, comparison: Comparison) -> float:
        """The part of the logit that depends on the words: at most 0; `REFUSED` for a contradiction."""
        if comparison.contradiction is not None:
            return REFUSED
        return sum(weight * count for weight, count in zip(self.doubts, comparison.doubts, strict=True))

    def write(self, path: Path) -> None:
        """Write the head as JSON, atomically."""
        content = asdict(self) | {"weights": [float(weight) for weight in self.weights]}
        write_atomically(path, json.dumps(content))

    @classmethod
    def load(cls, path: Path) -> Head:
        """Read a head.

        Raises:
            OSError, ValueError: The file does not exist, or is damaged.
        """
        try:
            content = json.loads(path.read_text())
            weights = np.asarray(content.pop("weights"), np.float32)
            calibration = content.pop("calibration")
            doubts = tuple(map(float, content.pop("doubts")))
            head = cls(
                weights,
                doubts=doubts,
                calibration=Calibration(**calibration) if calibration else None,
                **content,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a head: {error}") from error
        if weights.ndim != 1 or not np.isfinite(weights).all():
            raise ValueError(f"{path}: not a head: weights of shape {weights.shape}")
        return head


def train_head(
    texts: RegisteredTexts, others: Sequence[str], embedder: Embedder, settings: HeadSettings
) -> Head:
    """Train a head for `texts`; the same arguments give the same head.

    Args:
        others: Prompts of other adapters, used as negatives unless their words mean the same.
    """
    examples = _examples(texts, others, "training", settings)
    embeddings = embedder.embed([*examples.same, *examples.different]).astype(np.float64)
    weights, bias = fit_logistic(embeddings, examples.labels, settings.ridge)

    examples = _examples(texts, others, "calibration", settings)
    embeddings = embedder.embed([*examples.same, *examples.different]).astype(np.float64)
    compared = _compared(texts, [*examples.same, *examples.different])
    open_ = np.array([comparison.contradiction is None for comparison in compared])
    words = np.array([comparison.doubts for comparison in compared], np.float64)
    scores, labels = embeddings @ weights + bias, examples.labels
    if len(set(labels[open_])) < 2:
        # The words alone separate the calibration prompts, so the embedding keeps its scale.
        slope, penalties, shift = 1.0, np.full(3, REFUSED), 0.0
    else:
        slope, penalties, shift = platt(scores[open_], words[open_], labels[open_])
    head = Head(
        (weights * slope).astype(np.float32), bias * slope + shift, tuple(map(float, penalties)), None
    )
    logits = scores * slope + shift + np.array([head.penalty(comparison) for comparison in compared])
    calibration = calibrate(logits[labels == 1], logits[labels == 0], settings.min_precision)
    return replace(head, calibration=calibration)


@dataclass(frozen=True)
class _Examples:
    same: list[str]
    different: list[str]

    @property
    def labels(self) -> Vector:
        return np.repeat([1.0, 0.0], [len(self.same), len(self.different)])


def _examples(
    texts: RegisteredTexts, others: Sequence[str], part: Split, settings: HeadSettings
) -> _Examples:
    training = part == "training"
    positives = settings.training_paraphrases if training else settings.calibration_paraphrases
    negatives = settings.training_negatives if training else settings.calibration_negatives
    # Most are made from the prompt itself; registered paraphrases add words that are not in the lexicon.
    share = positives // 3 // max(len(texts.paraphrases), 1)
    same = [
        *(texts.same if training else ()),
        *(wording for text in texts.paraphrases for wording in paraphrases(text, share, part)),
    ]
    same += paraphrases(texts.prompt, positives - (len(same) - len(texts.same) * training), part)
    different = [negative.text for negative in hard_negatives(texts.prompt, negatives, part)]
    for guard in texts.guard_prompts:
        different += [*((guard,) if training else ()), *paraphrases(guard, 4, part)]
    registered = [read(text) for text in texts.same]
    different += [text for text in others if closest(registered, read(text)).contradiction is not None]
    different += [text for text in _unrelated() if (_hash(text) % 2 == 0) == training]
    known = set(same)
    return _Examples(
        list(dict.fromkeys(same)), [text for text in dict.fromkeys(different) if text not in known]
    )


def _compared(texts: RegisteredTexts, asked: Iterable[str]) -> list[Comparison]:
    """Compare each prompt with the registered ones, every fourth with a lexicon of their words only."""
    registered: list[Reading] = [read(text) for text in texts.same]
    return [closest(registered, read(text, texts.same if _hash(text) % 4 == 0 else None)) for text in asked]


def _hash(text: str) -> int:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[0]


@lru_cache(maxsize=1)
def _unrelated() -> tuple[str, ...]:
    return tuple(
        yaml.safe_load(Path(__file__).with_name("unrelated_prompts.yaml").read_text(encoding="utf-8"))
    )
