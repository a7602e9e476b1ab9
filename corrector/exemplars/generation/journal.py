"""The journal of a collection: what was asked for, received, stored and paid, in the hidden folder `.generation`.

- `journal.jsonl`: a line before each request is sent (`asked`), and a line when it has ended (`ended`), each on the disk
  before the collection goes on. A request without its second line was in flight when the process was killed.
- `answers/N`: the answer to request N as it was received, before anything is made of it. It is removed when all of its
  images are stored.
- `lock`: held while a collection works in the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.exemplars.files import printable
from corrector.files import write_atomically

FOLDER = ".generation"
JOURNAL_FILE = "journal.jsonl"


class Outcome(StrEnum):
    """How a request ended."""

    STORED = "stored"
    """At least one image is in the folder."""
    UNUSABLE = "unusable"
    """It was answered, without an image that can be read."""
    REFUSED = "refused"
    """The API's content policy refuses the prompt; not paid."""
    NOT_BILLED = "not billed"
    """The API was not reached or took no request."""
    FAILED = "failed"
    """The API failed after the request was sent, or did not answer; it may have been billed."""
    KILLED = "killed"
    """It was in flight when the process was killed; it may have been billed."""


@dataclass
class Request:
    """One request.

    Attributes:
        id: The client's own; sent to the API with the request.
        paid_images: Images that were paid for, or may have been; while it has not ended, those that it asks for.
        outcome: None while it has not ended.
    """

    number: int
    id: str
    prompt: str
    price: Decimal
    paid_images: int
    outcome: Outcome | None = None
    detail: str = ""
    images: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


class Journal:
    """The journal of a folder, for one process at a time; `Journal.opened` makes it. Callers serialise its methods."""

    def __init__(self, folder: Path, prompt: str) -> None:
        """For `opened`: read the journal, or begin it for `prompt`."""
        self.folder = folder
        self.path = folder / FOLDER / JOURNAL_FILE
        self.requests: dict[int, Request] = {}
        self._answers = folder / FOLDER / "answers"
        self._answers.mkdir(exist_ok=True)
        for place, pattern in ((self._answers, ".*"), (folder, ".generated-*")):
            for partial in place.glob(pattern):
                partial.unlink()
        found = self._read()
        if found is None:
            write_atomically(self.path, "", durable=True)
            self._append({"event": "collection", "prompt": prompt})
        elif found != prompt:
            raise UserError(
                f'{printable(str(folder))}: holds images of "{printable(found)}"; choose another folder'
            )

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, prompt: str) -> Iterator[Journal]:
        """Lock `folder`, which is made where it is missing, until the block or this process ends.

        Raises:
            UserError: Another collection works there, it is one of another prompt, its journal is damaged, or the disk
                refuses.
        """
        try:
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
            with (folder / FOLDER / "lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(
                        f"{printable(str(folder))}: another collection works in this folder; wait until it ends"
                    ) from None
                yield cls(folder, prompt)
        except OSError as error:
            raise UserError(f"{printable(str(error.filename or folder))}: {error.strerror}") from None

    @property
    def stored(self) -> int:
        """Number of images that were stored, also of those that somebody has removed since."""
        return sum(len(request.images) for request in self.requests.values())

    @property
    def paid_images(self) -> int:
        """Images that were paid for, or may have been."""
        return sum(request.paid_images for request in self.requests.values())

    @property
    def spent(self) -> Decimal:
        """Dollars that were paid, or may have been."""
        return sum((each.paid_images * each.price for each in self.requests.values()), Decimal(0))

    @property
    def asked(self) -> Counter[str]:
        """Prompt -> images that are stored or asked for."""
        counts: Counter[str] = Counter()
        for each in self.requests.values():
            counts[each.prompt] += each.paid_images if each.outcome is None else len(each.images)
        return counts

    def ended(self, outcome: Outcome | None) -> list[Request]:
        """The requests with this outcome; None: those that have not ended."""
        return [each for each in self.requests.values() if each.outcome is outcome]

    def ask(self, prompt: str, images: int, price: Decimal, asked_for: Mapping[str, Any]) -> Request:
        """Write down that a request is about to be sent; `asked_for`, its further members, is for people."""
        request = Request(max(self.requests, default=0) + 1, secrets.token_hex(8), prompt, price, images)
        self._append(
            {
                **asked_for,
                "event": "asked",
                "request": request.number,
                "id": request.id,
                "prompt": prompt,
                "images": images,
                "price": str(price),
            }
        )
        self.requests[request.number] = request
        return request

    def end(
        self,
        request: Request,
        outcome: Outcome,
        *,
        paid_images: int = 0,
        detail: str = "",
        request_id: str | None = None,
        images: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write down how a request ended."""
        self._append(
            {
                "event": "ended",
                "request": request.number,
                "outcome": outcome,
                "paid_images": paid_images,
                "detail": detail,
                "request_id": request_id,
                "images": images,
            }
        )
        request.outcome, request.detail, request.images = outcome, detail, images
        request.paid_images = paid_images

    def keep(self, request: Request, request_id: str | None, body: bytes) -> None:
        """Store an answer as it was received.

        Raises:
            UserError: The disk does not take it; the message names where the answer is, if anywhere.
        """
        content = json.dumps({"request_id": request_id}).encode() + b"\n" + body
        try:
            write_atomically(self._answer(request), content, durable=True)
        except OSError as error:
            problem = (
                f"{printable(str(self._answer(request)))}: the answer, which is paid for, cannot be written"
            )
            try:
                rescued = Path(tempfile.mkdtemp(prefix="exemplars-")) / self._answer(request).name
                write_atomically(rescued, content, durable=True)
            except OSError:
                raise UserError(
                    f"{problem} ({error.strerror}), and is lost; make room and run again"
                ) from None
            raise UserError(
                f"{problem} ({error.strerror}); it is in {rescued}: make room, move it to "
                f"{printable(str(self._answers))}, and run again"
            ) from None

    def kept(self, request: Request) -> tuple[str | None, bytes] | None:
        """The API's request id and the answer's body, where it was received."""
        try:
            head, _, body = self._answer(request).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        return json.loads(head)["request_id"], body

    def forget(self, request: Request) -> None:
        """Remove an answer whose images are stored."""
        self._answer(request).unlink(missing_ok=True)

    def _answer(self, request: Request) -> Path:
        return self._answers / f"{request.number:04d}"

    def _append(self, event: Mapping[str, Any]) -> None:
        line = json.dumps({**event, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            length = os.fstat(descriptor).st_size
            try:
                with os.fdopen(descriptor, "ab", closefd=False) as file:
                    file.write(line.encode())
                os.fsync(descriptor)
            except OSError as error:
                os.ftruncate(descriptor, length)
                raise UserError(
                    f"{printable(str(self.path))}: cannot be written ({error.strerror}); "
                    "make room and run the same command again"
                ) from None
        finally:
            os.close(descriptor)

    def _read(self) -> str | None:
        """The collection's prompt; None where nothing was written yet. A line that was cut off is removed."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(self.path, len(whole))
        prompt = None
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                event = json.loads(line)
                if event["event"] == "collection":
                    prompt = str(event["prompt"])
                elif event["event"] == "asked":
                    asked = Request(
                        *(event["request"], event["id"], event["prompt"]),
                        *(Decimal(event["price"]), event["images"]),
                    )
                    self.requests[asked.number] = asked
                else:
                    ended = self.requests[event["request"]]
                    ended.outcome, ended.detail = Outcome(event["outcome"]), event["detail"]
                    ended.paid_images, ended.images = event["paid_images"], event["images"]
            except (ValueError, KeyError, TypeError, InvalidOperation):
                raise UserError(
                    f"{printable(str(self.path))}:{number}: is damaged; restore it or choose another folder"
                ) from None
        return prompt
