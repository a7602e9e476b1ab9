"""What people decided about exemplars: a JSON file keyed by content digest, which the review page writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from corrector.errors import UserError
from corrector.exemplars.provenance import Decision

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Decisions(BaseModel):
    """Decisions by the SHA-256 of an image's decoded pixels, as in `Exemplar.sha256`. One file may serve many sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    decisions: dict[Digest, Decision] = Field(default_factory=dict)

    @classmethod
    def load(cls, *paths: Path) -> Decisions:
        """Read decision files; about one image the last file decides.

        Raises:
            UserError: One is missing, or not such a file.
        """
        found: dict[str, Decision] = {}
        for path in paths:
            try:
                found |= cls.model_validate_json(path.read_bytes()).decisions
            except OSError as error:
                raise UserError(f"decisions: cannot read {path}: {error.strerror}") from None
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "the file"
                raise UserError(f"decisions: {path}: {where}: {first['msg']}") from None
        return cls(decisions=found)

    @property
    def dropped(self) -> dict[str, str]:
        """Digest -> who dropped it and why, of each dropped image."""
        return {digest: str(each) for digest, each in self.decisions.items() if each.decision == "drop"}
