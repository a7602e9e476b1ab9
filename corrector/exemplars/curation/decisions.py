"""What people decided about exemplars: a JSON file keyed by content digest, which the review page writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from corrector.errors import UserError

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Decision(BaseModel):
    """A decision about one image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Literal["keep", "drop"]
    by: str = Field(min_length=1, max_length=200)
    """Who decided: a person's name, or `curation` where a verdict did."""
    why: str = Field(default="", max_length=1000)


class Decisions(BaseModel):
    """Decisions by the SHA-256 of an image's decoded pixels, as in `Exemplar.sha256`. One file serves many sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    decisions: dict[Digest, Decision] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Decisions:
        """Read a decision file.

        Raises:
            UserError: It is missing, or not such a file.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"decisions: cannot read {path}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise UserError(f"decisions: {path}: {where}: {first['msg']}") from None

    @property
    def dropped(self) -> dict[str, str]:
        """Digest -> who dropped it and why, of each dropped image."""
        return {
            digest: f"by {each.by}" + (f": {each.why}" if each.why else "")
            for digest, each in self.decisions.items()
            if each.decision == "drop"
        }

    @property
    def kept(self) -> frozenset[str]:
        """Digests of the images that are to be kept whatever the verdict."""
        return frozenset(digest for digest, each in self.decisions.items() if each.decision == "keep")
