"""Collects images: asks within the plan, stores what comes, and writes down every step before the next."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from corrector.errors import UserError
from corrector.exemplars.decoding import decode
from corrector.exemplars.files import UnreadableFileError, printable
from corrector.exemplars.formats import ENDINGS
from corrector.exemplars.generation.images_api import (
    ImagesApi,
    UnusableAnswerError,
    is_out_of_money,
    is_refusal,
    items,
    retry_after,
)
from corrector.exemplars.generation.journal import Journal, Outcome, Request
from corrector.exemplars.generation.plan import Plan
from corrector.files import write_atomically
from corrector.http_client import NoAnswerError, NotSentError, Response

MAX_FAILURES = 5
"""After so many requests in a row that may have been billed and brought no image, a collection stops."""

_FETCH_PAUSES = (0.5, 1.5)
"""Seconds before the second and the third try to fetch an image from its URL."""
_MAX_PAUSE = 60.0
_REVISED_PROMPT_CHARACTERS = 10_000


class Collection:
    """One run of a collection; see `run`."""

    def __init__(self, plan: Plan, api: ImagesApi, journal: Journal, report: Callable[[str], None]) -> None:
        """`report` takes a line on every request that has ended; several threads call it, one at a time."""
        self._plan, self._api, self._journal, self._report = plan, api, journal, report
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._not_before = 0.0
        self._waiting_since: float | None = None
        self._pauses = 0
        self._failures = 0

    def run(self) -> None:
        """Ask until all images are stored, the budget allows no more, or all prompts are refused.

        Answers that a killed run received are stored first; its requests without an answer count as paid.

        Raises:
            UserError: The API refuses to work or takes too long, or the disk refuses. Requests in flight end first.
        """
        for request in self._journal.ended(None):
            if self._journal.kept(request) is None:
                detail = "in flight when the process was killed"
                self._end(request, Outcome.KILLED, paid_images=request.paid_images, detail=detail)
            else:
                self._store(request)
        with ThreadPoolExecutor(self._plan.parallel) as pool:
            workers = [pool.submit(self._work) for _ in range(self._plan.parallel)]
            try:
                errors = [error for worker in workers if (error := worker.exception())]
            except KeyboardInterrupt:
                self._report("stops when the requests in flight have ended")
                self._stop.set()
                raise
        for error in errors:
            if not isinstance(error, UserError):
                raise error
        if errors:
            raise UserError("\n".join(dict.fromkeys(map(str, errors))))

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    if self._next() is None:
                        return
                    pause = self._not_before - time.monotonic()
                    request = self._asked() if pause <= 0 else None
                if request is None:
                    self._stop.wait(pause)
                else:
                    self._perform(request)
        except BaseException:
            self._stop.set()
            raise

    def _next(self) -> tuple[str, int] | None:
        """The next prompt and its number of images; None where nothing is left to ask for."""
        journal, plan = self._journal, self._plan
        in_flight = sum(request.paid_images for request in journal.ended(None))
        images = min(
            plan.images_per_request,
            plan.count - journal.stored - in_flight,
            plan.affordable(journal.spent, journal.paid_images),
        )
        prompt = plan.next_prompt(journal.asked, {each.prompt for each in journal.ended(Outcome.REFUSED)})
        return None if images < 1 or prompt is None else (prompt, images)

    def _asked(self) -> Request | None:
        if (chosen := self._next()) is None:
            return None
        asked_for = {
            **self._api.parameters,
            "host": self._api.host,
            "model": self._api.model,
            "size": self._api.size,
        }
        return self._journal.ask(*chosen, self._plan.price, asked_for)

    def _perform(self, request: Request) -> None:
        try:
            response = self._api.generate(request.prompt, request.paid_images, request.id)
        except NotSentError as error:
            self._end(request, Outcome.NOT_BILLED, detail=f"cannot reach the API: {error}")
            self._wait(None, f"{self._api.base_url}: cannot be reached ({error})")
            return
        except NoAnswerError as error:
            self._fail(request, str(error), None)
            return
        request_id = response.headers.get("x-request-id")
        if response.status == 200:
            self._journal.keep(request, request_id, response.body)
            self._store(request)
            return
        said = self._api.explained(response)
        if response.status >= 500 or response.status == 408:
            self._fail(request, said, response)
        elif is_refusal(response):
            self._end(request, Outcome.REFUSED, detail=said, request_id=request_id)
        else:
            self._end(request, Outcome.NOT_BILLED, detail=said, request_id=request_id)
            if response.status != 429 or is_out_of_money(response):
                raise UserError(f"{self._api.base_url}: {said}")
            self._wait(response, f"{self._api.base_url}: takes no requests ({said})")

    def _store(self, request: Request) -> None:
        """Store the images of a kept answer."""
        kept = self._journal.kept(request)
        assert kept is not None
        request_id, body = kept
        images: list[Mapping[str, Any]] = []
        problems: list[str] = []
        returned = 0
        try:
            for place, item in enumerate(items(body), 1):
                returned = place
                try:
                    images.append(self._image(request, place, item))
                except UnusableAnswerError as problem:
                    problems.append(f"image {place}: {problem}")
        except UnusableAnswerError as problem:
            problems.append(str(problem))
        is_whole = not problems
        if returned < request.paid_images and is_whole:
            problems.append(f"{returned} of {request.paid_images} images")
        self._end(
            request,
            Outcome.STORED if images else Outcome.UNUSABLE,
            paid_images=max(request.paid_images, returned),
            detail="; ".join(problems),
            request_id=request_id,
            images=images,
        )
        if is_whole:
            self._journal.forget(request)
        if images:
            with self._lock:
                self._failures, self._pauses, self._waiting_since = 0, 0, None
        else:
            self._count_failure("; ".join(problems))

    def _image(self, request: Request, place: int, item: Mapping[str, Any]) -> Mapping[str, Any]:
        content = self._content(request, item)
        try:
            picture = decode(content, self._api.limits)
        except UnreadableFileError as problem:
            raise UnusableAnswerError(f"it {problem}") from None
        name = f"generated-{request.number:04d}-{place}{ENDINGS[picture.format][0]}"
        try:
            write_atomically(self._journal.folder / name, content, durable=True)
        except OSError as error:
            raise UserError(
                f"{printable(str(self._journal.folder / name))}: cannot be written ({error.strerror}); "
                f"request {request.number}'s answer is kept: make room and run the same command again"
            ) from None
        revised = item.get("revised_prompt")
        size = f"{picture.image.width}x{picture.image.height}"
        return {
            "file": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": size,
            "revised_prompt": revised[:_REVISED_PROMPT_CHARACTERS] if isinstance(revised, str) else None,
        } | ({} if self._api.size in (size, "auto") else {"remark": f"asked for {self._api.size}"})

    def _content(self, request: Request, item: Mapping[str, Any]) -> bytes:
        for pause in (*_FETCH_PAUSES, None):
            try:
                return self._api.content(item)
            except (NotSentError, NoAnswerError) as error:
                if pause is None or self._stop.wait(pause):
                    raise UserError(
                        f"request {request.number}: its image cannot be fetched ({error}); its URL is kept and may "
                        "expire: run the same command again soon"
                    ) from None
        raise AssertionError

    def _fail(self, request: Request, reason: str, response: Response | None) -> None:
        self._end(request, Outcome.FAILED, paid_images=request.paid_images, detail=reason)
        self._count_failure(reason)
        self._wait(response, f"{self._api.base_url}: fails ({reason})")

    def _count_failure(self, reason: str) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                raise UserError(
                    f"{self._api.base_url}: {MAX_FAILURES} requests in a row brought no image and may have been "
                    f"billed; the last: {reason}"
                )

    def _wait(self, response: Response | None, reason: str) -> None:
        """Send no request for as long as the answer says, or for twice as long as the last time."""
        with self._lock:
            now = time.monotonic()
            if self._waiting_since is None:
                self._waiting_since = now
            told = None if response is None else retry_after(response)
            pause = min(_MAX_PAUSE, 2.0**self._pauses) if told is None else told
            self._pauses = min(self._pauses + 1, 10)
            waited = now - self._waiting_since
            if waited + pause > self._plan.patience:
                raise UserError(
                    f"{reason}; after {waited:.0f} s of waiting it would be asked again in {pause:.0f} s, which is "
                    f"beyond the {self._plan.patience:g} s of --patience; run the same command again later"
                )
            self._not_before = max(self._not_before, now + pause)

    def _end(self, request: Request, outcome: Outcome, **written: Any) -> None:
        with self._lock:
            self._journal.end(request, outcome, **written)
            detail = f": {printable(request.detail)}" if request.detail else ""
            self._report(
                f"request {request.number} {outcome}{detail} ({self._journal.stored} of {self._plan.count} images)"
            )
