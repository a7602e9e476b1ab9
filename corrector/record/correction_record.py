"""The record of one finished prompt: a folder with the results of training, evaluation and the gate.

record.json                               CorrectionRecord; written last: a folder that has it is complete
adapter/pytorch_lora_weights.safetensors  the adapter, and beside it
adapter/adapter_config.json
images/exemplars/NNN.png                  training exemplars
images/held_out/NNN.png                   held-out exemplars
images/before/NNN.png                     images of the base
images/after/NNN.png                      images of the corrected model; the same index has the same seed and prompt
images/guards/K/before|after/NNN.png      the same for the K-th guard prompt
images/negatives/K/before|after/NNN.png   the same for the K-th hard negative, as if it were routed to the adapter
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from corrector.cost import CorrectionCost
from corrector.errors import UserError
from corrector.evaluation.comparison import GuardSamples, NegativeSamples
from corrector.evaluation.scorecard import Scorecard
from corrector.exemplars.provenance import ExemplarSource
from corrector.files import file_sha256, replace_folder, staging_folder, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

RECORD_FILE = "record.json"
ADAPTER_FOLDER = "adapter"
WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
CONFIG_FILE = "adapter_config.json"
IMAGES_FOLDER = "images"


class RecordError(UserError):
    """A record folder is incomplete, unreadable or was changed since it was written."""


class CurvePoint(BaseModel):
    """One reported training step; other keys of a step report are dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")

    step: int = Field(ge=0, description="Optimiser steps done, 1 for the first.")
    loss: float
    preservation_loss: float | None = None
    grad_norm: float | None = None
    lr: float | None = None


@dataclass(frozen=True)
class RecordImages:
    """The image files of a record folder, in the order of their indices."""

    exemplars: tuple[Path, ...]
    held_out: tuple[Path, ...]
    before: tuple[Path, ...]
    after: tuple[Path, ...]
    guards: tuple[tuple[tuple[Path, ...], tuple[Path, ...]], ...]
    negatives: tuple[tuple[tuple[Path, ...], tuple[Path, ...]], ...]


class CorrectionRecord(BaseModel):
    """Everything known about one finished prompt. Immutable; in JSON, NaN and infinity are strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str = Field(min_length=1, description="The prompt's slug in its batch.")
    prompt: str
    status: Literal["corrected", "rejected", "failed", "not judged"] = Field(
        description="corrected: the gate passed; rejected: scored, but the gate said no; failed: see error; "
        "not judged: imported without exemplars."
    )
    error: str | None = Field(default=None, description="Why a failed prompt failed, in words for the user.")
    work_id: str = Field(
        pattern=r"^[\w.-]{1,128}$", description="Hash of everything that determines the result."
    )
    entry: dict[str, Any] = Field(default_factory=dict, description="The batch file's entry (FailingPrompt).")
    base_reference: str
    base_name: str
    base_revision: str
    adapter_sha256: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="Of adapter/pytorch_lora_weights.safetensors."
    )
    scorecard: Scorecard | None = None
    curve: tuple[CurvePoint, ...] = ()
    seeds: tuple[int, ...] = Field(default=(), description="Of images/before and images/after, by index.")
    sampled_prompts: tuple[str, ...] = Field(
        default=(), description="The prompt or paraphrase of images/before and images/after, by index."
    )
    guards: tuple[GuardSamples, ...] = Field(default=(), description="Of images/guards/K, by K.")
    hard_negatives: tuple[NegativeSamples, ...] = Field(
        default=(), description="Of images/negatives/K, by K."
    )
    seconds: dict[str, float] = Field(default_factory=dict, description="Wall-clock seconds per stage.")
    cost: CorrectionCost | None = Field(default=None, description="FLOPs per stage, of what was computed.")
    exemplars: tuple[ExemplarSource, ...] = Field(
        default=(),
        description="Sources and decisions of the exemplars: training, held out, dropped. Older records have none.",
    )
    lineage: dict[str, Any] = Field(
        default_factory=dict,
        description="Exemplar digests {file: sha256}, code and package versions, seeds, hyper-parameters.",
    )
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.status == "failed" and not self.error:
            raise ValueError("a failed record needs its error")
        if self.status != "failed" and self.adapter_sha256 is None:
            raise ValueError(f"a {self.status} record needs adapter_sha256")
        if self.status in ("corrected", "rejected") and self.scorecard is None:
            raise ValueError(f"a {self.status} record needs its scorecard")
        return self

    @property
    def imported(self) -> Mapping[str, Any] | None:
        """What is known of the file that the adapter was imported from; None where it was trained here."""
        return self.lineage.get("imported")

    def save(self, folder: Path) -> Path:
        """Write record.json into `folder`, beside the adapter and the images that must lie there already.

        The file is written whole or not at all, so a folder that has record.json is complete.

        Returns:
            The path of record.json.

        Raises:
            RecordError: The adapter is missing or its bytes are not those of `adapter_sha256`.
        """
        self.verify(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return write_atomically(folder / RECORD_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the record of `folder`; the adapter's bytes are not read (`verify` does).

        Raises:
            RecordError: No record.json, or not one that this version understands.
        """
        path = folder / RECORD_FILE
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecordError(
                f"{folder}: no {RECORD_FILE}; expected the folder of a finished prompt"
            ) from None
        except (ValidationError, UnicodeDecodeError, OSError) as error:
            raise RecordError(f"{path}: not a correction record: {error}") from error

    def verify(self, folder: Path) -> None:
        """Check the adapter's bytes in `folder` against `adapter_sha256`.

        Raises:
            RecordError: The adapter is missing or its bytes differ.
        """
        if self.adapter_sha256 is None:
            return
        weights = folder / ADAPTER_FOLDER / WEIGHTS_FILE
        if not weights.is_file():
            raise RecordError(f"{weights}: missing; the record of {self.name!r} names an adapter")
        found = file_sha256(weights)
        if found != self.adapter_sha256:
            raise RecordError(f"{weights}: SHA-256 is {found}, the record says {self.adapter_sha256}")

    @staticmethod
    def write_images(
        folder: Path,
        *,
        exemplars: Tensor | None = None,
        held_out: Tensor | None = None,
        before: Tensor | None = None,
        after: Tensor | None = None,
        guards: Sequence[tuple[Tensor, Tensor]] = (),
        negatives: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> None:
        """Replace the images of a record folder; a record.json there is deleted, as it describes the former images.

        Args:
            exemplars: Training exemplars [N, 3, H, W], values 0 to 1; likewise all others. None: no files.
            before: Images of the base; `after` holds the same prompts and seeds in the same order.
            guards: (before, after) per guard prompt, in the order of the record's `guards`.
            negatives: The same per hard negative, in the order of `hard_negatives`.

        Raises:
            ValueError: Before and after differ in number.
        """
        pairs = [
            ("before and after", before, after),
            *((f"guard {k}", *pair) for k, pair in enumerate(guards)),
            *((f"hard negative {k}", *pair) for k, pair in enumerate(negatives)),
        ]
        for what, one, other in pairs:
            if (0 if one is None else len(one)) != (0 if other is None else len(other)):
                raise ValueError(f"{what}: as many images of the base as of the corrected model are needed")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD_FILE).unlink(missing_ok=True)
        groups = {"exemplars": exemplars, "held_out": held_out, "before": before, "after": after}
        for kind, neighbours in (("guards", guards), ("negatives", negatives)):
            for k, (one, other) in enumerate(neighbours):
                groups |= {f"{kind}/{k}/before": one, f"{kind}/{k}/after": other}
        with staging_folder(folder / IMAGES_FOLDER) as staging:
            for group, images in groups.items():
                _write_group(staging / IMAGES_FOLDER / group, images)
            replace_folder(staging / IMAGES_FOLDER, folder / IMAGES_FOLDER)

    @staticmethod
    def images(folder: Path) -> RecordImages:
        """The image files that lie in a record folder; groups that are absent are empty."""
        root = folder / IMAGES_FOLDER
        return RecordImages(
            exemplars=_pngs(root / "exemplars"),
            held_out=_pngs(root / "held_out"),
            before=_pngs(root / "before"),
            after=_pngs(root / "after"),
            guards=_pairs(root / "guards"),
            negatives=_pairs(root / "negatives"),
        )


def _pngs(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob("*.png")))


def _pairs(folder: Path) -> tuple[tuple[tuple[Path, ...], tuple[Path, ...]], ...]:
    numbered = sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda p: int(p.name))
    return tuple((_pngs(path / "before"), _pngs(path / "after")) for path in numbered)


def _write_group(folder: Path, images: Tensor | None) -> None:
    folder.mkdir(parents=True)
    if images is None:
        return
    pixels = images.detach().float().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:03d}.png", compress_level=1)
