"""The driver of a correction job: encodes, starts the queue and the lanes, scores and registers what they finish, reports."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import replace
from typing import Any

import ray
from rich.console import Console

from corrector.record.correction import CorrectionRecord
from corrector.report import write_report
from corrector.report.run_folder import adapter_label
from jobs.correction.finishing import Finisher
from jobs.correction.progress import ProgressLog, print_table
from jobs.correction.results import AdapterReference, PromptResult, RunResult
from jobs.inputs.batch import BatchWork, PromptWork
from jobs.inputs.run_folder import write_json
from jobs.lanes.plan import LaneLimits
from jobs.lanes.pool import LanePool
from jobs.lanes.provisioning import connect, encode_on_cluster, plan_on_cluster, work_items
from jobs.lanes.queue import Progress, PromptQueue
from jobs.lanes.ray_train import start_queue
from jobs.lanes.stopping import StopSignal

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
        limits: LaneLimits | None = None,
        tracking_uri: str | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self._work = work
        self._checkpoint_seconds = checkpoint_seconds
        self._console = console
        self._limits = limits or LaneLimits()
        self._tracking_uri = tracking_uri
        self._started = time.monotonic()
        self._stop = StopSignal()
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
            connect()
            with self._stop.listening("submit the batch again to go on"):
                self._correct(list(missing))
        return self._conclude()

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
            while finisher.busy and not self._stop.requested:
                finisher.poll()
                time.sleep(POLL_SECONDS / 5)
        finally:
            finisher.close()

    def _train(self, untrained: list[PromptWork], finisher: Finisher) -> None:
        plan = plan_on_cluster(self._work, untrained, self._limits, self._console)
        plan = replace(plan, settings=replace(plan.settings, checkpoint_seconds=self._checkpoint_seconds))
        items = work_items(self._work, untrained)
        queue = start_queue(PromptQueue, items)
        pool = LanePool(queue, self._work.spec, plan, self._work.run.lanes)
        encode_on_cluster(self._work, items, plan)
        by_id = {work.work_id: work for work in untrained}
        while by_id and not self._stop.requested:
            snapshot: list[Progress] = ray.get(queue.snapshot.remote())
            self._log.update(snapshot)
            for progress in snapshot:
                if progress.work_id in by_id and progress.state in ("sampled", "failed"):
                    work = by_id.pop(progress.work_id)
                    if progress.state == "sampled":
                        finisher.score(work)
                    else:
                        finisher.fail(work, progress.detail)
            lost = pool.reconcile(len(by_id))
            if lost is not None:
                for work in by_id.values():
                    finisher.fail(work, lost)
                by_id.clear()
            finisher.poll()
            time.sleep(POLL_SECONDS)
        if self._stop.requested:
            pool.stop()
        else:
            pool.join()

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
        return 130 if self._stop.requested else result.exit_status

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
