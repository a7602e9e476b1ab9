"""JudgeSettings: which API judges images, what it costs, and what may be spent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from urllib.parse import urlsplit

from corrector.errors import UserError
from corrector.http_client import origin
from corrector.settings import Settings

URL_VARIABLE = "CORRECTOR_JUDGE_URL"
_MODEL, _KEY = "CORRECTOR_JUDGE_MODEL", "CORRECTOR_JUDGE_KEY"
PRICE_VARIABLE, BUDGET_VARIABLE = "CORRECTOR_JUDGE_PRICE", "CORRECTOR_JUDGE_BUDGET"
AGREEMENT_VARIABLE = "CORRECTOR_JUDGE_AGREEMENT"
_MAX_KEY_CHARACTERS = 4096


@dataclass(frozen=True)
class JudgeSettings:
    """A vision-language model behind an API that speaks OpenAI's `POST /chat/completions`.

    Attributes:
        url: As OpenAI's clients take it, such as `https://api.openai.com/v1`, without a slash at its end.
        price: Dollars for the verdict on one image.
        budget: Dollars that may be spent on this model of this API over all runs that share `folder`.
        folder: Where answers and the amount spent are kept.
        key: Sent to this API only and shown nowhere.
        agreement: File with the model's agreement with people, or None.
        parallel: Requests at a time.
        timeout: Seconds for one answer.
        patience: Seconds for which an API that does not take requests is asked again.
    """

    url: str
    model: str
    price: Decimal
    budget: Decimal
    folder: Path
    key: str | None = field(default=None, repr=False)
    agreement: Path | None = None
    parallel: int = 4
    timeout: float = 120.0
    patience: float = 600.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> JudgeSettings:
        """From `CORRECTOR_JUDGE_URL`, `_MODEL`, `_PRICE`, `_BUDGET`, `_KEY` where the API wants one, and `_AGREEMENT`, the
        file that `python -m corrector.preference agree` wrote, where there is one.

        Answers are kept in the folder `judge` of `CORRECTOR_CACHE`. `environment`: default: the process's.

        Raises:
            UserError: A variable is missing, or cannot be what it should.
        """
        variables = os.environ if environment is None else environment

        def required(name: str, example: str) -> str:
            if not (written := variables.get(name, "").strip()):
                raise UserError(f"{name}: is not set; give {example}")
            return written

        url = required(URL_VARIABLE, "an API's address, such as https://api.openai.com/v1").rstrip("/")
        try:
            origin(urlsplit(url))
        except ValueError as error:
            raise UserError(f"{URL_VARIABLE}: {error}") from None
        if not (url.isascii() and url.isprintable()) or any(sign in url for sign in " ?#"):
            raise UserError(f"{URL_VARIABLE}: expected an address such as https://api.openai.com/v1")
        key = variables.get(_KEY, "").strip()
        if not (key.isascii() and key.isprintable()) or " " in key or len(key) > _MAX_KEY_CHARACTERS:
            raise UserError(f"{_KEY}: does not hold a key; set it to the API's key")
        return cls(
            url=url,
            model=required(_MODEL, "the model's name at the API"),
            price=_dollars(
                PRICE_VARIABLE, required(PRICE_VARIABLE, "dollars for one image's verdict, such as 0.002")
            ),
            budget=_dollars(
                BUDGET_VARIABLE, required(BUDGET_VARIABLE, "dollars that may be spent in all, such as 5")
            ),
            folder=Settings.from_environment(environment).cache / "judge",
            key=key or None,
            agreement=Path(written) if (written := variables.get(AGREEMENT_VARIABLE)) else None,
        )


def _dollars(name: str, written: str) -> Decimal:
    try:
        dollars = Decimal(written)
    except InvalidOperation:
        dollars = Decimal("NaN")
    if not dollars.is_finite() or dollars < 0:
        raise UserError(f'{name}: "{written}": expected dollars, such as 0.002')
    return dollars
