"""The driver of a correction: encodes, starts queue and lanes, scores and registers finished prompts, reports."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import asdict, replace

import ray
from rich.console import Console

from corrector.record.correction_record import CorrectionRecord
from corrector.report import write_report
from corrector.report.run_folder import adapter_label
from jobs.correction.progress import ProgressLog, print_table
from jobs.correction.registration import RegistrationPipeline
from jobs.correction.results import Results
from jobs.correction.sampling import CorrectionPolicy
from jobs.inputs.batch import BatchWork
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.ray_tasks import get_results
from jobs.inputs.run_lock import locked
from jobs.lanes.metrics import JobMetrics
from jobs.lanes.plan import LaneLimits
from jobs.lanes.pool import LanePool
from jobs.lanes.provisioning import connect, encode_on_cluster, plan_on_cluster
from jobs.lanes.queue import Progress, PromptQueue
from jobs.lanes.ray_train import start_queue
from jobs.lanes.stopping import StopSignal

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
CHECKPOINT_SECONDS = 20.0
"""Seconds of training that a lane may lose when it dies."""


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
        metrics: JobMetrics | None = None,
    ) -> None:
        """`metrics`: default: new ones, with nothing spent so far."""
        self._work = work
        self._checkpoint_seconds = checkpoint_seconds
        self._console = console
        self._limits = limits or LaneLimits()
        self._tracking_uri = tracking_uri
        self._stop = StopSignal()
        self._given_metrics = metrics
        self._log = ProgressLog({task.work_id: task.entry.name for task in work.tasks}, sys.stdout)

    def run(self) -> int:
        """Lock the run's folder and correct what is missing; returns the exit status.

        Raises:
            UserError: Another job works in the run's folder, or it cannot be written.
        """
        with locked(self._work.run):
            return self.correct()

    def correct(self) -> int:
        """As `run`, for a caller that holds the lock of the run's folder."""
        self._results = Results(self._work)
        for note in self._work.batch.notes:
            self._console.print(note, style="yellow", markup=False, highlight=False)
        for name, exemplars in self._work.exemplars.items():
            for note in exemplars.notes:
                self._console.print(f"{name}: {note}", style="dim", markup=False, highlight=False)
        if missing := self._work.missing:
            connect(self._work.run.run)
            with self._stop.listening("submit the batch again to go on"):
                self._correct(missing)
        return self._conclude()

    def _correct(self, missing: tuple[PromptTask, ...]) -> None:
        self._metrics = self._given_metrics or JobMetrics(self._work.run.run)
        finished = [task for task in self._work.tasks if task not in missing]
        self._metrics.begin({task.work_id: self._results[task].status for task in finished})
        # Few: what a process imports before it scores takes longer than scoring several prompts.
        cpus = int(ray.cluster_resources().get("CPU", 1))
        pipeline = RegistrationPipeline(
            self._work, self._settled, tracking_uri=self._tracking_uri, scoring_tasks=max(1, cpus // 2)
        )
        try:
            untrained = []
            for task in missing:
                if self._results[task].status in ("corrected", "rejected"):
                    pipeline.register(task)
                elif task.folder.sampled.exists():
                    pipeline.score(task)
                else:
                    untrained.append(task)
            untrained = pipeline.restore(untrained)
            if untrained:
                self._train(untrained, pipeline)
            while pipeline.busy and not self._stop.requested:
                pipeline.poll()
                self._results.flush()
                time.sleep(POLL_SECONDS / 5)
        finally:
            pipeline.close()

    def _train(self, untrained: list[PromptTask], pipeline: RegistrationPipeline) -> None:
        fine_tunes = [task.entry.hyperparameters for task in untrained]
        plan = plan_on_cluster(self._work, fine_tunes, self._limits, self._console)
        plan = replace(plan, settings=replace(plan.settings, checkpoint_seconds=self._checkpoint_seconds))
        self._work.store_exemplars(untrained)
        queue = start_queue(PromptQueue, untrained)
        encoded = encode_on_cluster(self._work, untrained, plan)
        pool = LanePool(
            queue,
            self._work.spec,
            plan,
            self._work.run.lanes,
            CorrectionPolicy,
            self._metrics,
            after=encoded,
        )
        in_lanes = {task.work_id: task for task in untrained}
        if encoded:
            pool.reconcile(1)  # one lane loads the base while the other cores encode
            get_results(encoded)
        while in_lanes and not self._stop.requested:
            snapshot: list[Progress] = ray.get(queue.snapshot.remote())
            self._log.update(snapshot)
            self._metrics.update(snapshot)
            if any(progress.state == "training" for progress in snapshot):
                pipeline.prepare()
            for progress in snapshot:
                if progress.work_id in in_lanes and progress.state in ("sampled", "failed"):
                    task = in_lanes.pop(progress.work_id)
                    if progress.state == "sampled":
                        pipeline.score(task)
                    else:
                        pipeline.fail(task, progress.detail)
            lost = pool.reconcile(len(in_lanes))
            if lost is not None:
                for task in in_lanes.values():
                    pipeline.fail(task, lost)
                in_lanes.clear()
            pipeline.poll()
            self._results.flush()
            time.sleep(POLL_SECONDS)
        if self._stop.requested:
            pool.stop()
        else:
            pool.join()

    def _settled(self, task: PromptTask, error: str | None) -> None:
        result = self._results.settle(task, error)
        self._metrics.settled(task.work_id, result.status, {} if result.found else result.seconds)
        details = [result.error] if result.error else list(result.reasons)
        if result.found:
            details.insert(0, f"registered by another run as {result.found}, not trained again")
        adapter = f"{result.adapter.name}/{result.adapter.version}" if result.adapter else None
        self._log.line(task.work_id, result.status, "; ".join(details), adapter)

    def _conclude(self) -> int:
        run = self._work.run
        result = self._results.write()
        if self._results.any_new or not run.report.exists():
            job = {
                "run": run.run,
                "batch": self._work.batch.path.name,
                "base": self._work.spec.name,
                "adapters": {
                    each.name: adapter_label(**asdict(each.adapter))
                    for each in result.prompts
                    if each.adapter
                },
            }
            folders = [task.folder.record for task in self._work.tasks]
            records = [(each.path, CorrectionRecord.load(each.path)) for each in folders if each.fetch()]
            if records:
                write_report(records, run.report.path, title=f"Corrections: {run.run}", job=job)
                run.report.store()
                result = self._results.write()
        print_table(result.prompts, self._console)
        for what, file in (("report", run.report), ("result", run.result)):
            if file.exists():
                self._console.print(f"{what}  {file.url}", highlight=False, soft_wrap=True)
        return 130 if self._stop.requested else result.exit_status
