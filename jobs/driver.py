"""The driver of a correction job: encodes, starts the queue and the lanes, scores and registers what they finish, reports."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import ray
from rich.console import Console

from corrector.base import ContentCache, check_transformer
from corrector.registry.record import CorrectionRecord
from corrector.report import write_report
from corrector.report.run_folder import adapter_label
from jobs.batch import BatchWork, PromptWork
from jobs.encoding import EncodingDevice, encode_batch
from jobs.finishing import Finisher
from jobs.fleet import Fleet
from jobs.plan import LaneDevice, LanePlan, LaneWishes, inspect_device, plan_lanes
from jobs.preparation import store_exemplars
from jobs.progress import ProgressLog, print_table
from jobs.queue import Progress, WorkItem
from jobs.result import AdapterReference, PromptResult, RunResult
from jobs.run_folder import write_json
from jobs.tasks import answers
from jobs.trainer import TRAIN_ENVIRONMENT, start_queue

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
CHECKPOINT_SECONDS = 20.0
"""What a lane that dies may lose."""


class CorrectionJob:
    """One submission of one batch."""

    def __init__(
        self,
        work: BatchWork,
        console: Console,
        *,
        wishes: LaneWishes | None = None,
        tracking_uri: str | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self._work = work
        self._checkpoint_seconds = checkpoint_seconds
        self._console = console
        self._wishes = wishes or LaneWishes()
        self._tracking_uri = tracking_uri
        self._started = time.monotonic()
        self._stopping = False
        self._worked: set[str] = set()
        self._log = ProgressLog({each.work_id: each.entry.name for each in work.prompts}, sys.stdout)

    def run(self) -> int:
        """Do what is missing; returns the exit status."""
        self._work.run.create()
        for note in self._work.batch.notes:
            self._console.print(note, style="yellow", markup=False, highlight=False)
        for work in self._work.prompts:
            for note in work.notes:
                self._console.print(f"{work.entry.name}: {note}", style="dim", markup=False, highlight=False)
        missing = self._work.missing
        if missing:
            if not ray.is_initialized():
                environment = {"env_vars": TRAIN_ENVIRONMENT}
                ray.init(log_to_driver=False, logging_level=logging.WARNING, runtime_env=environment)
            with self._stoppable():  # after Ray, which takes the signals for itself
                self._correct(list(missing))
        return self._conclude()

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Within, SIGINT and SIGTERM ask for an orderly end; a second one does not wait for it."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._stopping:
                raise KeyboardInterrupt
            self._stopping = True
            print("stopping: what is under way is kept, submit the batch again to go on", flush=True)

        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _correct(self, missing: list[PromptWork]) -> None:
        cpus = int(ray.cluster_resources().get("CPU", 1))
        finisher = Finisher(self._work, self._settled, tracking_uri=self._tracking_uri, tasks=max(1, cpus))
        try:
            untrained = []
            for work in missing:
                if work.folder.is_recorded and not _has_failed(work):
                    finisher.register(work)
                elif work.folder.is_sampled:
                    finisher.score(work)
                else:
                    untrained.append(work)
            untrained = finisher.restore(untrained)
            if untrained:
                self._train(untrained, finisher)
            while finisher.busy and not self._stopping:
                finisher.poll()
                time.sleep(POLL_SECONDS / 5)
        finally:
            finisher.close()

    def _train(self, untrained: list[PromptWork], finisher: Finisher) -> None:
        plan = self._plan(untrained)
        cache = ContentCache(self._work.run.cache)
        items = [
            WorkItem(work.work_id, work.entry, store_exemplars(work.exemplars, cache), str(work.folder.path))
            for work in untrained
        ]
        queue = start_queue(items)
        fleet = Fleet(queue, self._work.spec, plan, self._work.run.lanes)
        self._encode(items, plan)
        by_id = {work.work_id: work for work in untrained}
        while by_id and not self._stopping:
            snapshot: list[Progress] = ray.get(queue.snapshot.remote())
            self._log.update(snapshot)
            for progress in snapshot:
                if progress.work_id in by_id and progress.state in ("sampled", "failed"):
                    work = by_id.pop(progress.work_id)
                    if progress.state == "sampled":
                        finisher.score(work)
                    else:
                        finisher.fail(work, progress.detail)
            lost = fleet.tend(len(by_id))
            if lost is not None:
                for work in by_id.values():
                    finisher.fail(work, lost)
                by_id.clear()
            finisher.poll()
            time.sleep(POLL_SECONDS)
        if self._stopping:
            fleet.stop()
        else:
            fleet.join()

    def _plan(self, untrained: list[PromptWork]) -> LanePlan:
        """Plan the lanes on the strength of what a machine of the cluster measures of itself."""
        cluster: dict[str, float] = ray.cluster_resources()
        kind = "cuda" if cluster.get("GPU", 0) >= 1 else "cpu"
        spec = self._work.spec
        answers(
            [ray.remote(check_transformer).options(num_cpus=1).remote(spec)]
        )  # before any device is asked for
        task = ray.remote(inspect_device).options(num_cpus=1, num_gpus=1 if kind == "cuda" else 0)
        device: LaneDevice = answers([task.remote(spec, kind)])[0]
        plan = plan_lanes(self._work, untrained, cluster, device, self._wishes)
        for line in (device.precision, str(plan.packs)):
            if line:
                self._console.print(line, style="dim", markup=False, highlight=False)
        return replace(plan, settings=replace(plan.settings, checkpoint_seconds=self._checkpoint_seconds))

    def _encode(self, items: list[WorkItem], plan: LanePlan) -> None:
        """Fill the cache, on the devices on which the lanes will be."""
        work, settings, workers = self._work, plan.settings, plan.resources.workers
        most = plan.lanes_on(ray.cluster_resources()) * workers
        device = EncodingDevice(settings.device, 1.0, plan.resources.gpus, plan.resources.threads)
        encode_batch(work.spec, items, work.batch.evaluation, work.run.cache, device, most)

    def _settled(self, work: PromptWork, error: str | None) -> None:
        self._worked.add(work.work_id)
        result = self._result(work, error)
        told = [result.error] if result.error else list(result.reasons)
        if result.found:
            told.insert(0, f"registered by another run as {result.found}, not trained again")
        self._log.line(work.work_id, result.status, "; ".join(told))
        self._write_result()

    def _conclude(self) -> int:
        run = self._work.run
        records = [
            (work.folder.record, CorrectionRecord.load(work.folder.record))
            for work in self._work.prompts
            if work.folder.is_recorded
        ]
        if records and (self._worked or not run.report.is_file()):
            known = {each.name: each.adapter for each in self._write_result().prompts if each.adapter}
            job = {
                "run": run.run,
                "batch": self._work.batch.path.name,
                "base": self._work.spec.name,
                "adapters": {name: adapter_label(**adapter.model_dump()) for name, adapter in known.items()},
            }
            write_report(records, run.report, title=f"Corrections: {run.run}", job=job)
        result = self._write_result()
        print_table(result.prompts, self._console)
        for what, path in (("report", run.report), ("result", run.result)):
            if path.is_file():
                self._console.print(f"{what}  {path}", highlight=False, soft_wrap=True)
        return 130 if self._stopping else result.exit_status

    def _write_result(self) -> RunResult:
        run, spec = self._work.run, self._work.spec
        result = RunResult(
            run=run.run,
            batch=str(self._work.batch.path),
            base=spec.name,
            base_revision=spec.revision,
            seconds=round(time.monotonic() - self._started, 1),
            report=str(run.report) if run.report.is_file() else None,
            prompts=tuple(self._result(work) for work in self._work.prompts),
        )
        write_json(run.result, result.model_dump(mode="json"))
        return result

    def _result(self, work: PromptWork, error: str | None = None) -> PromptResult:
        """What is known of one prompt, read from its folder."""
        common: dict[str, Any] = {
            "name": work.entry.name,
            "prompt": work.entry.prompt,
            "work_id": work.work_id,
            "folder": str(work.folder.record),
            "worked": work.work_id in self._worked,
            "found": work.folder.found,
        }
        if not work.folder.is_recorded:
            return PromptResult(status="unfinished", error=error, **common)
        record = CorrectionRecord.load(work.folder.record)
        adapter = None
        if work.folder.is_finished:
            known = json.loads(work.folder.registration.read_text())
            adapter = AdapterReference(**{key: known[key] for key in AdapterReference.model_fields})
        card = record.scorecard
        reasons = (
            () if card is None else tuple(check.detail for check in card.verdict.reasons if not check.passed)
        )
        return PromptResult(
            status="unfinished" if error else record.status,
            error=error or record.error,
            reasons=reasons,
            adapter=adapter,
            scorecard=None if card is None else card.model_dump(mode="json"),
            seconds=record.seconds,
            **common,
        )


def _has_failed(work: PromptWork) -> bool:
    """Whether an earlier submission gave this prompt up; a new submission tries it again."""
    return CorrectionRecord.load(work.folder.record).status == "failed"
