"""The driver of a search: runs lanes and Tune, confirms the best trials on fresh seeds, and corrects with the chosen ones."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from rich.console import Console

from corrector.dreambooth import checkpoint
from corrector.evaluation.rungs import confirmation
from corrector.evaluation.trial_score import Choice
from corrector.prompts.search_settings import Configuration
from corrector.record.search_results import PromptSearchResult, SearchResult
from corrector.registry import RegistryError
from corrector.registry.searches import known_good
from corrector.report import write_search_report
from corrector.settings import Settings
from jobs.correction.driver import POLL_SECONDS, CorrectionJob
from jobs.inputs.batch import BatchWork, check_batch
from jobs.inputs.ray_tasks import get_results
from jobs.inputs.run_folder import write_json
from jobs.inputs.run_lock import locked
from jobs.lanes.metrics import JobMetrics
from jobs.lanes.node_check import alive_nodes
from jobs.lanes.plan import LaneLimits, LanePlan
from jobs.lanes.pool import LanePool
from jobs.lanes.provisioning import connect, encode_on_cluster, plan_on_cluster
from jobs.lanes.queue import TERMINAL, Progress
from jobs.lanes.ray_train import start_queue
from jobs.lanes.stopping import StopSignal
from jobs.tuning.choice import choose_trial, finalists
from jobs.tuning.configurations import max_trials, proposals
from jobs.tuning.lane import TrialPolicy
from jobs.tuning.plan import PromptSearch, SearchGroup, grouped, plan_search
from jobs.tuning.queue import TrialQueue
from jobs.tuning.report import (
    BEST_FILE,
    REPORT_FILE,
    RESULT_FILE,
    SearchLog,
    describe,
    print_choices,
    read_prompt,
    write_best_batch,
)
from jobs.tuning.searcher import GroupSearcher, make_tuner
from jobs.tuning.tracking import SearchTracking

logger = logging.getLogger(__name__)

SLOTS = 8
"""Slots of all lanes of a device, unless the user sets another number: they fill it, and each costs a process of Tune's."""
TUNE_SECONDS = 60.0
"""How long to wait for Tune to end its processes."""
WARM_STARTS = 2
"""Configurations of earlier searches that are tried first; few, so that most trials are new."""


class SearchJob:
    """One submission of one search."""

    def __init__(
        self,
        work: BatchWork,
        console: Console,
        *,
        limits: LaneLimits | None = None,
        tracking_uri: str | None = None,
        resume: bool = False,
        warm_start: bool = True,
    ) -> None:
        """`resume`: continue the trials in the run's folder; `warm_start`: begin with the choices of earlier searches."""
        self._work = work
        self._settings = work.batch.search
        self._console = console
        self._limits = limits or LaneLimits()
        self._tracking_uri = tracking_uri
        self._resume = resume
        self._warm_start = warm_start
        self._stop = StopSignal()
        self._started = time.monotonic()
        self._searches: list[PromptSearch] = []
        self._groups: dict[str, SearchGroup] = {}
        self._choices: dict[str, Choice] = {}
        self._tracking = SearchTracking(self._result, tracking_uri=tracking_uri, root=work.run.registry)

    def run(self) -> int:
        """Search, confirm, and correct the batch with the chosen configurations; returns the exit status.

        Raises:
            UserError: Another job works in the run's folder, or it has trials and `resume` is not set.
        """
        with locked(self._work.run):
            result, lost = self.search()
            if self._stop.requested:
                return 130
            if lost is not None:
                self._console.print(lost, style="red", markup=False, highlight=False)
                return 1
            self._tracking.finish(result)
            own = {each.entry.name: each.entry.hyperparameters for each in self._searches}
            report = self._work.run.place.file(REPORT_FILE)
            write_search_report(result, own, report.path)
            report.store()
            print_choices(result, self._console)
            return self._correct_best()

    def search(self) -> tuple[SearchResult, str | None]:
        """Run and confirm the trials; returns the result so far, and why the lanes were lost or None."""
        work = self._work
        work.run.create()
        work.store_exemplars(work.tasks)
        self._searches = plan_search(work, resume=self._resume)
        self._groups = grouped(self._searches, self._settings)
        connect(work.run.run)
        self._metrics = JobMetrics(work.run.run)
        queue = start_queue(TrialQueue, self._groups)  # its process starts while lanes are planned
        plan = self._plan_lanes()
        get_results(encode_on_cluster(work, work.tasks, plan))
        with self._stop.listening("submit it again with --resume to go on"):
            lost = self._search(queue, plan)
        result = self._result()
        write_json(work.run.place.file(RESULT_FILE), result.model_dump(mode="json"))
        return result, lost

    def _plan_lanes(self) -> LanePlan:
        """Plan lanes as if all trials were as large as the largest."""
        largest = [
            search.largest(self._settings)
            for search in self._searches
            for _ in range(max_trials(self._settings, search.entry))
        ]
        limits = replace(self._limits, workers=1, machine_slots=SLOTS)
        return plan_on_cluster(self._work, largest, limits, self._console)

    def _search(self, queue: Any, plan: LanePlan) -> str | None:
        """Run all trials and confirm the best; returns why the lanes were lost, or None."""
        work, settings = self._work, self._settings
        policy = partial(TrialPolicy, search=settings, gate=work.batch.gate)
        pool = LanePool(queue, work.spec, plan, work.run.lanes, policy, self._metrics)
        log = SearchLog(self._searches, self._console)
        known, sources, trials = self._known_good(), {}, 0
        for name, group in self._groups.items():
            first = group.searches[0]
            sources[name] = proposals(
                settings, first.entry, recorded=first.configurations(), known_good=known
            )
            trials += max_trials(settings, first.entry)
        searcher = GroupSearcher(
            sources, self._groups, trials, on_open=queue.open.remote, on_close=queue.close.remote
        )
        capacity = plan.settings.slots * plan.lanes_on(alive_nodes())
        tuner = make_tuner(
            queue,
            self._groups,
            searcher,
            settings,
            concurrent=max(1, capacity // max(len(group.searches) for group in self._groups.values())),
            storage=work.run.place.below("tune").root,
            name=f"search-{uuid.uuid4().hex[:8]}",
        )
        tune = threading.Thread(target=_fit, args=(tuner,), name="tune", daemon=True)
        tune.start()
        lost = self._run_trials(queue, pool, log, tune, searcher)
        if lost is None and not self._stop.requested:
            lost = self._confirm(queue, pool, log)
        ray.get(queue.complete.remote())
        if self._stop.requested or lost is not None:
            pool.stop()
        else:
            pool.join()
        tune.join(TUNE_SECONDS)
        return lost

    def _known_good(self) -> list[Configuration]:
        """The choices of earlier searches on the same base; empty where the registry fails."""
        if not self._warm_start:
            return []
        own = [each.search_id for each in self._searches]
        place: dict[str, Any] = {"tracking_uri": self._tracking_uri, "root": self._work.run.registry}
        try:
            found = known_good(self._work.spec.revision, but=own, count=WARM_STARTS, **place)
        except RegistryError as error:
            logger.warning("not known what earlier searches found: %s", error)
            return []
        for configuration in found:
            self._console.print(
                f"begun with what an earlier search chose: {describe(configuration)}",
                style="dim",
                markup=False,
            )
        return found

    def _run_trials(
        self, queue: Any, pool: LanePool, log: SearchLog, tune: threading.Thread, searcher: GroupSearcher
    ) -> str | None:
        """Keep lanes running until Tune has ended every trial; returns why they were lost, or None.

        Does not wait for the end of Tune's processes, which takes some seconds.
        """
        lost = None
        while tune.is_alive() and not searcher.is_done:
            self._tracking.update()
            unsettled = self._log_progress(queue, log)
            lost = lost or pool.reconcile(unsettled)
            if self._stop.requested or lost is not None:
                searcher.halted = True
                ray.get(queue.stop.remote())
            time.sleep(POLL_SECONDS / 2)
        self._log_progress(queue, log)
        return lost

    def _wait_for_lanes(self, queue: Any, pool: LanePool, log: SearchLog) -> str | None:
        """Keep lanes running until no trial is waiting or in a slot; returns why they were lost, or None."""
        while not self._stop.requested and (unsettled := self._log_progress(queue, log)):
            lost = pool.reconcile(unsettled)
            if lost is not None:
                return lost
            time.sleep(POLL_SECONDS / 2)
        return None

    def _log_progress(self, queue: Any, log: SearchLog) -> int:
        """Print changes; returns how many trials are waiting or in a slot."""
        snapshot: list[Progress] = ray.get(queue.snapshot.remote())
        log.update(snapshot, ray.get(queue.scores.remote(log.printed)))
        self._metrics.update(snapshot)
        return sum(each.state not in TERMINAL for each in snapshot)

    def _confirm(self, queue: Any, pool: LanePool, log: SearchLog) -> str | None:
        """Score the best trials of every group on fresh seeds, and choose; returns why the lanes were lost, or None."""
        work = self._work
        fresh = confirmation(work.batch.evaluation, work.spec.num_inference_steps)

        # A lane may be at the last steps of a trial that Tune has stopped; the trial then counts as finished.
        lost = self._wait_for_lanes(queue, pool, log)
        if lost is not None or self._stop.requested:
            return lost
        for group in self._groups.values():
            for index in finalists(self._read_group(group), self._settings.confirmed):
                for search in group.searches:
                    ray.get(queue.confirm.remote(search.entry.name, index, fresh))
        lost = self._wait_for_lanes(queue, pool, log)
        if lost is not None or self._stop.requested:
            return lost
        for group in self._groups.values():
            choice = choose_trial(work, group, self._read_group(group))
            if choice is not None:
                self._choices |= {search.entry.name: choice for search in group.searches}
        return None

    def _read(self, search: PromptSearch) -> PromptSearchResult:
        return read_prompt(search, self._choices.get(search.entry.name))

    def _read_group(self, group: SearchGroup) -> list[PromptSearchResult]:
        return [self._read(search) for search in group.searches]

    def _result(self) -> SearchResult:
        work = self._work
        return SearchResult(
            run=work.run.run,
            batch=str(work.batch.path),
            base=work.spec.name,
            base_revision=work.spec.revision,
            objective=self._settings.objective,
            extractor=self._settings.extractor,
            seconds=round(time.monotonic() - self._started, 1),
            prompts=tuple(self._read(search) for search in self._searches),
        )

    def _correct_best(self) -> int:
        """Run a correction that resumes the chosen trials' checkpoints, so that it only samples, judges and registers them."""
        run, spec = self._work.run, self._work.spec
        chosen = {
            each.entry.name: each.trial_folder(int(self._choices[each.entry.name].trial))
            for each in self._searches
            if each.entry.name in self._choices
        }
        if not chosen:
            return 1
        path = write_best_batch(
            self._work, {name: folder.configuration or {} for name, folder in chosen.items()}
        )
        for what, name in (("search", REPORT_FILE), ("batch", BEST_FILE)):
            self._console.print(f"{what}  {run.place.file(name).url}", highlight=False, soft_wrap=True)
        settings = Settings.from_environment()
        # Exemplar paths are relative to the original batch file.
        roots = (*settings.exemplar_roots, self._work.batch.path.parent)
        best = check_batch(
            path,
            settings=replace(settings, exemplar_roots=roots),
            storage=run.storage,
            run=run.run,
            base=spec.reference,
            precision=spec.precision,
            decisions=self._work.decisions,
        )
        for task in best.missing:
            if not (task.folder.sampled.exists() or task.folder.record.exists()):
                folder = chosen[task.entry.name].checkpoint
                folder.fetch()
                state = checkpoint.read_state(folder.path)
                state["run"]["name"] = task.work_id
                checkpoint.write_state(state, task.folder.checkpoint.path)
                task.folder.checkpoint.store()
        job = CorrectionJob(
            best,
            self._console,
            limits=self._limits,
            tracking_uri=self._tracking_uri,
            metrics=self._metrics,
        )
        status = job.correct()
        return status if len(chosen) == len(self._searches) else max(status, 1)


def _fit(tuner: Any) -> None:
    try:
        tuner.fit()
    except Exception:
        logger.exception("Ray Tune ended; the trials so far count")
