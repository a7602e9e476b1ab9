"""Scores sampled prompts in Ray tasks, registers them in MLflow, and restores what an earlier run registered."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import ray

from corrector.errors import UserError
from corrector.record.writing import code_version
from corrector.registry import OtherBytes, RegisteredVersion, RegistryError, prepare, register
from corrector.registry.restore import find_works, restore_record
from jobs.correction.scoring import ScoringSettings, score_prompt, write_failure
from jobs.inputs.batch import BatchWork
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import PromptFolder, write_json
from jobs.log_context import log_context

logger = logging.getLogger(__name__)


class RegistrationPipeline:
    """Scores and registers prompts, a bounded number of scoring tasks at a time.

    `settled(task, error)` is called once per prompt: `error` is None when the record is in the prompt's folder and registered,
    and the reason when that was not possible.
    """

    def __init__(
        self,
        work: BatchWork,
        settled: Callable[[PromptTask, str | None], None],
        *,
        tracking_uri: str | None,
        scoring_tasks: int,
    ) -> None:
        self._settled = settled
        self._registry: dict[str, Any] = {"tracking_uri": tracking_uri, "root": work.run.registry}
        self._scoring_tasks = scoring_tasks
        self._settings = ScoringSettings(work.spec, work.batch.evaluation, work.batch.gate, code_version())
        self._waiting: deque[PromptTask] = deque()
        self._scoring: dict[Any, PromptTask] = {}
        self._registering: dict[Future[RegisteredVersion], PromptTask] = {}
        # One thread: registration is quick, and the local registry takes one writer at a time.
        self._registrar = ThreadPoolExecutor(1, thread_name_prefix="registrar")
        self._prepared = False
        # Scoring tasks ask for no CPU, since lanes may hold all until the queue is empty; `scoring_tasks` limits them.
        self._score = ray.remote(score_prompt).options(num_cpus=0, max_retries=2)

    @property
    def busy(self) -> bool:
        """Whether a prompt is not yet settled."""
        return bool(self._waiting or self._scoring or self._registering)

    def prepare(self) -> None:
        """Open the registry, once, while lanes train, so that the first registration does not wait."""
        if not self._prepared:
            self._prepared = True
            self._registrar.submit(prepare, **self._registry)

    def restore(self, tasks: Sequence[PromptTask]) -> list[PromptTask]:
        """Restore the records of prompts that another run has registered; returns the other prompts, to be trained.

        Prompts whose registry or record cannot be read are trained, which needs no registry.
        """
        try:
            known = find_works({task.work_id: task.entry.name for task in tasks}, **self._registry)
        except RegistryError as error:
            logger.warning("not known what is registered already: %s", error)
            return list(tasks)
        left = []
        for task in tasks:
            if task.work_id not in known:
                left.append(task)
                continue
            with log_context(**task.log_fields):
                try:
                    restore_record(known[task.work_id], task.folder.record.path, **self._registry)
                    task.folder.record.store()
                except UserError as error:
                    logger.warning("%s: registered before, but trained again: %s", task.entry.name, error)
                    left.append(task)
                else:
                    self.register(task)
        return left

    def score(self, task: PromptTask) -> None:
        """Queue a sampled prompt for scoring and registration."""
        self._waiting.append(task)

    def register(self, task: PromptTask) -> None:
        """Queue a prompt that has a record for registration."""
        self._registering[self._registrar.submit(_register, task.folder, self._registry)] = task

    def fail(self, task: PromptTask, reason: str) -> None:
        """Write the record of a prompt that could not be corrected, and register it."""
        write_failure(task, self._settings, reason)
        self.register(task)

    def poll(self) -> None:
        """Start waiting scoring tasks and registrations and collect finished ones, without blocking."""
        while self._waiting and len(self._scoring) < self._scoring_tasks:
            task = self._waiting.popleft()
            self._scoring[self._score.remote(task, self._settings)] = task
        references = list(self._scoring)
        done = ray.wait(references, num_returns=len(references), timeout=0)[0] if references else []
        for reference in done:
            task = self._scoring.pop(reference)
            with log_context(**task.log_fields):
                try:
                    ray.get(reference)
                except Exception as error:
                    logger.exception("%s: scoring failed", task.entry.name)
                    self.fail(task, f"scoring failed: {_reason(error)}")
                else:
                    self.register(task)
        for future in [future for future in self._registering if future.done()]:
            task = self._registering.pop(future)
            with log_context(**task.log_fields):
                self._settle(task, future)

    def close(self) -> None:
        """Wait for the current registration, and drop the others: the next submission registers them."""
        self._registrar.shutdown(wait=True, cancel_futures=True)

    def _settle(self, task: PromptTask, future: Future[RegisteredVersion]) -> None:
        error = future.exception()
        if isinstance(error, OtherBytes):
            # Another run trained the same work at the same time, and rounding differed.
            logger.warning("%s: %s", task.entry.name, error)
            registered = error.registered
        elif error is not None:
            logger.error("%s: registration failed", task.entry.name, exc_info=error)
            self._settled(task, f"registration failed: {_reason(error)}")
            return
        else:
            registered = future.result()
        if registered.version is not None:
            write_json(task.folder.registration, asdict(registered))
        self._settled(task, None)


def _register(folder: PromptFolder, registry: dict[str, Any]) -> RegisteredVersion:
    folder.record.fetch()
    return register(folder.record.path, **registry)


def _reason(error: BaseException) -> str:
    """The first line of an error's message that is not blank."""
    cause = getattr(error, "cause", None) or error
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
