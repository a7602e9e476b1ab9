"""Trust: whether a judge agrees with people often enough for its verdicts to decide."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from corrector.detectors.judge_settings import AGREEMENT_VARIABLE
from corrector.errors import UserError


class Trust(BaseModel):
    """Whether a source's verdicts may decide, or only advise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["trusted", "advisory"]
    reason: str
    """Such as "kappa 0.41 on 60 pairs; 0.6 on 50 wanted"."""


class _TrustedJudge(BaseModel):
    judge: str
    trust: Trust


class _AgreementFile(BaseModel):
    """The part of `agreement.json` that is about the judge of single images."""

    images: _TrustedJudge | None


def advisory_reason(judge: str, file: Path | None) -> str | None:
    """Why the judge of images with this name is advisory; None: the file says that it is trusted.

    Args:
        file: Written by `python -m corrector.preference agree`; None: there is none.

    Raises:
        UserError: The file cannot be read.
    """
    if file is None:
        return f"its agreement with people is not known; {AGREEMENT_VARIABLE} names none"
    try:
        found = _AgreementFile.model_validate_json(file.read_bytes()).images
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is none"
        raise UserError(
            f"{AGREEMENT_VARIABLE}: {file}: cannot be read as an agreement ({reason}); write it with "
            "`python -m corrector.preference agree`"
        ) from None
    if found is None:
        return f"{file} has no verdicts on single images"
    if found.judge != judge:
        return f"{file} is about {found.judge}"
    return found.trust.reason if found.trust.status == "advisory" else None
