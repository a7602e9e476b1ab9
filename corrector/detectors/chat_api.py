"""The client of an API that speaks OpenAI's `POST /chat/completions` with images."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from corrector.detectors.judge_settings import JudgeSettings
from corrector.exemplars.files import printable
from corrector.exemplars.generation.images_api import is_out_of_money, is_refusal, retry_after
from corrector.http_client import NoAnswerError, NotSentError, Response, exchange

_MAX_ANSWER_BYTES = 2**20
_MESSAGE_CHARACTERS = 300


class BusyError(Exception):
    """The API takes no request now, and bills none.

    Attributes:
        pause: Seconds that it wants the client to wait, or None.
    """

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class FailedError(BusyError):
    """The request brought no answer, and may have been billed."""


class HopelessError(Exception):
    """The API refuses every request: a wrong key, an unknown model, no credit. Nothing is billed."""


class RefusedError(Exception):
    """The API's content policy refuses this image or its prompt.

    Attributes:
        is_billed: Whether the model was asked.
    """

    def __init__(self, reason: str, *, is_billed: bool) -> None:
        super().__init__(reason)
        self.is_billed = is_billed


def ask(
    settings: JudgeSettings, instruction: str, question: str, images: Sequence[bytes], schema: dict[str, Any]
) -> str:
    """What the model writes about some images, at temperature 0.

    Args:
        images: PNG files, in the order in which the model sees them.
        schema: JSON Schema of the answer, which the API may enforce.

    Raises:
        BusyError, FailedError, HopelessError, RefusedError: There is no answer.
    """
    pictures = [{"url": "data:image/png;base64," + base64.b64encode(png).decode("ascii")} for png in images]
    body = {
        "model": settings.model,
        "temperature": 0,
        "messages": [
            {"role": "system", "content": instruction},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": question},
                    *({"type": "image_url", "image_url": picture} for picture in pictures),
                ],
            },
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "strict": True, "schema": schema},
        },
    }
    headers = {"Content-Type": "application/json"}
    if settings.key:
        headers["Authorization"] = f"Bearer {settings.key}"
    try:
        response = exchange(
            "POST",
            f"{settings.url}/chat/completions",
            body=json.dumps(body).encode(),
            headers=headers,
            seconds=settings.timeout,
            max_bytes=_MAX_ANSWER_BYTES,
        )
    except NotSentError as error:
        raise BusyError(f"cannot be reached ({error})") from None
    except NoAnswerError as error:
        raise FailedError(str(error)) from None
    if response.status == 200:
        return _content(response.body)
    said = _said(response, settings.key)
    if is_refusal(response):
        raise RefusedError(said, is_billed=False)
    if response.status >= 500 or response.status == 408:
        raise FailedError(said, retry_after(response))
    if response.status == 429 and not is_out_of_money(response):
        raise BusyError(said, retry_after(response))
    raise HopelessError(said)


def _content(body: bytes) -> str:
    try:
        choice = json.loads(body)["choices"][0]
        message = choice["message"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise FailedError("the answer is not a chat completion") from None
    if not isinstance(message, dict):
        raise FailedError("the answer is not a chat completion")
    if refusal := message.get("refusal"):
        raise RefusedError(f"refused: {_short(str(refusal))}", is_billed=True)
    if choice.get("finish_reason") == "content_filter":
        raise RefusedError("refused by the API's content filter", is_billed=True)
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _said(response: Response, key: str | None) -> str:
    """What an answer that is no success says, on one line, without the key."""
    text = response.body.decode(errors="replace")
    try:
        error = json.loads(text)["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return f"status {response.status}: {_short(text.replace(key, '(key)') if key else text)}"


def _short(text: str) -> str:
    return printable(text.strip())[:_MESSAGE_CHARACTERS]
