"""After a lane is done with a prompt: score it in a task, register it, and keep the registry's answer."""

from __future__ import annotations

import logging
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray

from corrector.errors import UserError
from corrector.registry import OtherBytes, RegisteredVersion, RegistryError, prepare, register
from corrector.registry.restore import find_works, restore_record
from jobs.correction.scoring import ScoringTask, score_prompt, write_failure
from jobs.inputs.batch import BatchWork, PromptWork
from jobs.inputs.run_folder import write_json

logger = logging.getLogger(__name__)


class Finisher:
    """Carries prompts from sampled to registered, a bounded number of scoring tasks at a time.

    `settled(work, error)` is called once for each: with None when its record lies in its folder and is registered, with the
    reason when that was not possible.
    """

    def __init__(
        self,
        work: BatchWork,
        settled: Callable[[PromptWork, str | None], None],
        *,
        tracking_uri: str | None,
        tasks: int,
    ) -> None:
        self._work = work
        self._settled = settled
        self._tracking_uri = tracking_uri
        self._tasks = tasks
        self._code_version = code_version()
        self._waiting: deque[PromptWork] = deque()
        self._scoring: dict[Any, PromptWork] = {}
        self._registering: dict[Future[RegisteredVersion], PromptWork] = {}
        # One thread: registration is quick, and the local registry takes one writer at a time anyway.
        self._registrar = ThreadPoolExecutor(1, thread_name_prefix="registrar")
        self._registrar.submit(prepare, tracking_uri, work.run.registry)
        # Lanes may hold every CPU until the queue is empty; scoring is bounded by `tasks` instead.
        self._score = ray.remote(score_prompt).options(num_cpus=0, max_retries=2)

    @property
    def busy(self) -> bool:
        """Whether anything is still under way."""
        return bool(self._waiting or self._scoring or self._registering)

    def restore(self, works: Sequence[PromptWork]) -> list[PromptWork]:
        """Take over the prompts whose work another run has registered, records and all; returns those that are left.

        What cannot be read or is damaged is left, too: training needs no registry.
        """
        place: dict[str, Any] = {"tracking_uri": self._tracking_uri, "root": self._work.run.registry}
        try:
            known = find_works({work.work_id: work.entry.name for work in works}, **place)
        except RegistryError as error:
            logger.warning("not known what is registered already: %s", error)
            return list(works)
        left = []
        for work in works:
            if work.work_id not in known:
                left.append(work)
                continue
            try:
                restore_record(known[work.work_id], work.folder.record, **place)
            except UserError as error:
                logger.warning("%s: registered before, but trained again: %s", work.entry.name, error)
                left.append(work)
            else:
                self.register(work)
        return left

    def score(self, work: PromptWork) -> None:
        """Take over a prompt whose images lie in its folder."""
        self._waiting.append(work)

    def register(self, work: PromptWork) -> None:
        """Take over a prompt whose record lies in its folder."""
        future = self._registrar.submit(
            register, work.folder.record, tracking_uri=self._tracking_uri, root=self._work.run.registry
        )
        self._registering[future] = work

    def fail(self, work: PromptWork, reason: str) -> None:
        """Record that a prompt could not be corrected."""
        write_failure(self._task(work), reason)
        self.register(work)

    def poll(self) -> None:
        """Start what can start and take in what is done; returns at once."""
        while self._waiting and len(self._scoring) < self._tasks:
            work = self._waiting.popleft()
            self._scoring[self._score.remote(self._task(work))] = work
        references = list(self._scoring)
        done = ray.wait(references, num_returns=len(references), timeout=0)[0] if references else []
        for reference in done:
            work = self._scoring.pop(reference)
            try:
                ray.get(reference)
            except Exception as error:
                logger.exception("%s: scoring failed", work.entry.name)
                self.fail(work, f"scoring failed: {_reason(error)}")
            else:
                self.register(work)
        for future in [future for future in self._registering if future.done()]:
            self._take_in(self._registering.pop(future), future)

    def close(self) -> None:
        """Let the registration that is under way end, and drop the rest; the next submission takes it up."""
        self._registrar.shutdown(wait=True, cancel_futures=True)

    def _take_in(self, work: PromptWork, future: Future[RegisteredVersion]) -> None:
        error = future.exception()
        if isinstance(error, OtherBytes):
            # Trained at the same time in another run of the same storage or server, where rounding may go another way.
            logger.warning("%s: %s", work.entry.name, error)
            registered = error.registered
        elif error is not None:
            logger.error("%s: registration failed", work.entry.name, exc_info=error)
            self._settled(work, f"registration failed: {_reason(error)}")
            return
        else:
            registered = future.result()
        if registered.version is not None:
            write_json(work.folder.registration, asdict(registered))
        self._settled(work, None)

    def _task(self, work: PromptWork) -> ScoringTask:
        batch, spec = self._work.batch, self._work.spec
        return ScoringTask(
            entry=work.entry,
            work_id=work.work_id,
            folder=str(work.folder.path),
            base_reference=spec.reference,
            base_name=spec.name,
            base_revision=spec.revision,
            precision=spec.precision,
            evaluation=batch.evaluation,
            gate=batch.gate,
            exemplar_digests=work.exemplar_digests,
            code_version=self._code_version,
        )


def code_version() -> str:
    """The commit of the checkout that the job runs from, "+changes" added where it was changed; else the package's version."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        try:
            return version("prompt-corrector")
        except PackageNotFoundError:
            return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def _reason(error: BaseException) -> str:
    """The first line that says something."""
    cause = getattr(error, "cause", None) or error
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
