"""PaidChat: questions about images to a vision-language model behind an API, within a budget, and none twice."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from corrector.base import content_key
from corrector.detectors.answers import Answers
from corrector.detectors.chat_api import BusyError, FailedError, HopelessError, RefusedError, ask
from corrector.detectors.judge_settings import JudgeSettings
from corrector.exemplars.files import printable

MAX_FAILURES = 5
"""After so many answers in a row that may have been billed and hold no verdict, the API is not asked again."""

_FIRST_PAUSE, _MAX_PAUSE = 0.5, 60.0
_NOTE_CHARACTERS = 300


class Verdict(BaseModel):
    """Base of the JSON objects that a model is asked for."""

    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": False})

    reason: str


V = TypeVar("V", bound=Verdict)


@dataclass(frozen=True)
class Question:
    """What is asked about some images.

    Attributes:
        about: What makes it another question: texts, and `image_digest` of the images.
        text: For the model.
        images: Makes the PNG files, when they are sent.
        count: How many they are.
    """

    about: tuple[str, ...]
    text: str
    images: Callable[[], Sequence[bytes]]
    count: int = 1


@dataclass(frozen=True)
class Reply(Generic[V]):
    """A verdict and its reason; None: there is no verdict, and the note says why."""

    verdict: V | None
    note: str


class PaidChat(Generic[V]):
    """A conversation with one model of one API under one instruction.

    Replies are kept by question, model, address and instruction, and not asked for again. A refusal, prose, or other JSON is
    no verdict. The chat stops (`stopped`) where the budget ends, the API refuses to work, is busy for longer than the
    settings' patience, or fails or gives no verdict `MAX_FAILURES` times in a row; replies so far are kept.

    Attributes:
        identity: The model, and the digest of the instruction.
        stopped: Why it asks no more, or None.
    """

    def __init__(self, settings: JudgeSettings, instruction: str, kind: type[V]) -> None:
        """`kind`: the object that the instruction asks for."""
        self._settings, self._instruction, self._kind = settings, instruction, kind
        self._schema = kind.model_json_schema()
        self._digest = content_key(instruction)[:8]
        self.identity = f"{settings.model} {self._digest}"
        folder = settings.folder / content_key(settings.url, settings.model)[:16]
        self._answers = Answers(folder, settings.price, settings.budget)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failures = self._pauses = 0
        self._not_before = 0.0
        self._waiting_since: float | None = None
        self.stopped: str | None = None

    @property
    def spent(self) -> Decimal:
        """Dollars that were spent on this model over all runs, or may have been."""
        return self._answers.spent

    def sends(self, images: int) -> str:
        """How many images leave this machine at most, whither, and at what price."""
        settings = self._settings
        left = max(Decimal(0), settings.budget - self.spent)
        most = min(images * settings.price, left)
        return (
            f"at most {images} images go to {settings.model} at {settings.url}, for ${settings.price} each, at most ${most} "
            f"in all; ${self.spent} of ${settings.budget} are spent"
        )

    def ask(self, questions: Sequence[Question]) -> list[Reply[V]]:
        """The reply to each question, in order."""
        keys = [self._key(question) for question in questions]
        found = {key: reply for key in keys if (reply := self._known(key)) is not None}
        unknown = {key: question for key, question in zip(keys, questions, strict=True) if key not in found}
        with ThreadPoolExecutor(self._settings.parallel) as pool:
            asked = [pool.submit(self._ask, key, question) for key, question in unknown.items()]
            try:
                found |= zip(unknown, [each.result() for each in asked], strict=True)
            except BaseException:
                self._end("stopped")
                raise
        return [found[key] for key in keys]

    def _key(self, question: Question) -> str:
        settings = self._settings
        return content_key("verdict", settings.url, settings.model, self._digest, *question.about)

    def _known(self, key: str) -> Reply[V] | None:
        """What was kept; a damaged file counts as missing."""
        try:
            kept = self._answers.get(key)
            verdict = kept["verdict"]
            return Reply(verdict and self._kind.model_validate(verdict), str(kept["note"]))
        except (KeyError, TypeError, ValidationError):
            return None

    def _ask(self, key: str, question: Question) -> Reply[V]:
        """The model's reply; one without a verdict that is not kept where the chat stopped."""
        images = question.images()
        while (stopped := self._turn(question.count)) is None:
            try:
                content = ask(self._settings, self._instruction, question.text, images, self._schema)
            except FailedError as error:
                self._count(str(error))
                self._wait(error)
            except BusyError as error:
                self._answers.refund(question.count)
                self._wait(error)
            except HopelessError as error:
                self._answers.refund(question.count)
                self._end(f"{self._settings.url}: {error}")
            except RefusedError as error:
                if not error.is_billed:
                    self._answers.refund(question.count)
                return self._keep(key, Reply(None, str(error)))
            else:
                reply = self._read(content)
                if reply.verdict is None:
                    self._count(reply.note)
                return self._keep(key, reply)
        return Reply(None, stopped)

    def _read(self, content: str) -> Reply[V]:
        try:
            verdict = self._kind.model_validate_json(content)
        except ValidationError:
            return Reply(None, f"no verdict: {_short(content) or 'an empty answer'}")
        return Reply(verdict, _short(verdict.reason))

    def _turn(self, images: int) -> str | None:
        """Wait until a request may be sent and reserve its price; why none may be, where none may."""
        while self.stopped is None and (pause := self._not_before - time.monotonic()) > 0:
            self._stop.wait(pause)
        if self.stopped is None:
            if self._answers.reserve(images):
                return None
            self._end(
                f"the budget is spent: ${self.spent} of ${self._settings.budget}; raise CORRECTOR_JUDGE_BUDGET to go on"
            )
        return self.stopped

    def _keep(self, key: str, reply: Reply[V]) -> Reply[V]:
        verdict = reply.verdict and reply.verdict.model_dump(mode="json")
        self._answers.put(key, {"verdict": verdict, "note": reply.note})
        with self._lock:
            self._pauses, self._waiting_since = 0, None
            if reply.verdict is not None:
                self._failures = 0
        return reply

    def _count(self, reason: str) -> None:
        """Count an answer without a verdict that may have been billed."""
        with self._lock:
            self._failures += 1
            failures = self._failures
        if failures >= MAX_FAILURES:
            self._end(
                f"{self._settings.url}: {MAX_FAILURES} answers in a row held no verdict and may have been billed; "
                f"the last: {reason}"
            )

    def _wait(self, error: BusyError) -> None:
        """Send no request for as long as the API says, or for twice as long as the last time."""
        with self._lock:
            now = time.monotonic()
            if self._waiting_since is None:
                self._waiting_since = now
            pause = min(_MAX_PAUSE, _FIRST_PAUSE * 2.0**self._pauses) if error.pause is None else error.pause
            self._pauses = min(self._pauses + 1, 10)
            is_late = now - self._waiting_since + pause > self._settings.patience
            if not is_late:
                self._not_before = max(self._not_before, now + pause)
        if is_late:
            self._end(
                f"{self._settings.url}: takes no requests for longer than {self._settings.patience:g} s ({error}); "
                "run the same command again later"
            )

    def _end(self, reason: str) -> None:
        with self._lock:
            self.stopped = self.stopped or reason
        self._stop.set()


def image_digest(pixels: np.ndarray) -> str:
    """SHA-256 of an image's shape and 8-bit pixels."""
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def sending_is_confirmed() -> bool:
    """Whether the user at the terminal agrees to what `PaidChat.sends` said; False without a terminal."""
    return sys.stdin.isatty() and input("send? [y/N] ").strip().lower() in ("y", "yes")


def _short(text: str) -> str:
    return printable(" ".join(text.split()))[:_NOTE_CHARACTERS]
