"""The client of an API that speaks OpenAI's `POST /images/generations`."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from corrector.exemplars.files import Limits, printable
from corrector.http_client import (
    LargeAnswerError,
    NoAnswerError,
    Response,
    UnusableUrlError,
    exchange,
    fetch,
    origin,
)

MAX_REDIRECTS = 3
"""Of the URL of an image."""

_REFUSALS = frozenset(("contentpolicyviolation", "moderationblocked", "contentfilter", "contentfiltered"))
_NO_MONEY = frozenset(("insufficientquota", "billinghardlimitreached"))
_MESSAGE_CHARACTERS = 300


class UnusableAnswerError(Exception):
    """An answer, or one image of it, that is not what was asked for."""


@dataclass(frozen=True)
class ImagesApi:
    """One model of one API.

    Attributes:
        base_url: As OpenAI's clients take it, such as `https://api.openai.com/v1`, without a slash at its end.
        size: As the API takes it, such as `1024x1024`.
        key: Sent to this API only and shown nowhere.
        parameters: Further members of the request, such as `quality`.
        timeout: Seconds for one answer or one image.
    """

    base_url: str
    model: str
    size: str
    key: str | None = field(default=None, repr=False)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 300.0
    limits: Limits = field(default_factory=Limits)

    @property
    def host(self) -> str:
        """The API's host, with its port where `base_url` has one."""
        return urlsplit(self.base_url).netloc

    def generate(self, prompt: str, images: int, request_id: str) -> Response:
        """Ask once for `images` images; see `exchange` for what it raises.

        Args:
            request_id: Sent as `X-Client-Request-Id`, which names the request to the API's support.
        """
        body = {
            **self.parameters,
            "model": self.model,
            "prompt": prompt,
            "n": images,
            "size": self.size,
        }
        headers = {"Content-Type": "application/json", "X-Client-Request-Id": request_id}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return exchange(
            "POST",
            f"{self.base_url}/images/generations",
            body=json.dumps(body).encode(),
            headers=headers,
            seconds=self.timeout,
            max_bytes=2**20 + images * self.limits.file_bytes * 4 // 3,
        )

    def content(self, item: Mapping[str, Any]) -> bytes:
        """The bytes of one image of an answer; fetches it where the answer names its URL.

        Raises:
            UnusableAnswerError: There is no image.
            NotSentError, NoAnswerError: It cannot be fetched now.
        """
        encoded, url = item.get("b64_json"), item.get("url")
        if isinstance(encoded, str):
            try:
                return base64.b64decode(encoded, validate=True)
            except ValueError:
                raise UnusableAnswerError("its b64_json is not base64") from None
        if not isinstance(url, str):
            raise UnusableAnswerError("it has neither b64_json nor url")
        try:
            return self._fetched(url)
        except (LargeAnswerError, UnusableUrlError) as error:
            raise UnusableAnswerError(f"its URL: {error}") from None

    def _fetched(self, url: str) -> bytes:
        """What is at the URL of an image, or where it redirects to.

        Every URL on the way must be http or https (https where the API's is), and its host must have public addresses only,
        unless host and port are the API's own.
        """
        api = urlsplit(self.base_url)

        def check(hop: str) -> bool:
            try:
                parts = urlsplit(hop)
                place = origin(parts)
            except ValueError as error:
                raise UnusableUrlError(str(error)) from None
            if api.scheme == "https" and parts.scheme != "https":
                raise UnusableUrlError("is not encrypted, though the API is")
            return place != origin(api)

        response = fetch(
            url,
            check=check,
            redirects=MAX_REDIRECTS,
            seconds=self.timeout,
            max_bytes=self.limits.file_bytes,
        )
        if response.status in (408, 429) or response.status >= 500:
            raise NoAnswerError(f"status {response.status}")
        if response.location is not None:
            raise UnusableUrlError(f"more than {MAX_REDIRECTS} redirects")
        if response.status != 200:
            raise UnusableUrlError(f"status {response.status}")
        return response.body

    def explained(self, response: Response) -> str:
        """What an answer that is no success says, on one line, without the key."""
        error = _error(response.body)
        message = error.get("message") or response.body[:_MESSAGE_CHARACTERS].decode(errors="replace")
        if self.key:
            message = str(message).replace(self.key, "(key)")
        return f"status {response.status}: {printable(str(message).strip())[:_MESSAGE_CHARACTERS]}"


def items(body: bytes) -> Sequence[Mapping[str, Any]]:
    """The images of an answer.

    Raises:
        UnusableAnswerError: It is not such an answer, or has none.
    """
    try:
        data = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UnusableAnswerError("the answer is not one of an images API") from None
    if not isinstance(data, list) or not data or not all(isinstance(item, dict) for item in data):
        raise UnusableAnswerError("the answer holds no images")
    return data


def is_refusal(response: Response) -> bool:
    """Whether the API's content policy refuses the prompt or its images."""
    return response.status in (400, 403, 422) and _codes(response.body) & _REFUSALS != set()


def is_out_of_money(response: Response) -> bool:
    """Whether the account may buy no more, which waiting does not change."""
    return response.status == 402 or _codes(response.body) & _NO_MONEY != set()


def retry_after(response: Response) -> float | None:
    """Seconds that the server wants the client to wait, or None."""
    written = response.headers.get("retry-after", "")
    try:
        seconds = float(written)
    except ValueError:
        try:
            when = parsedate_to_datetime(written)
        except ValueError:
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _error(body: bytes) -> Mapping[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {"message": error}


def _codes(body: bytes) -> set[str]:
    error = _error(body)
    return {str(error.get(name)).lower().replace("_", "") for name in ("code", "type")}
