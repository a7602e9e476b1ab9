"""The driver of a search: lanes and Tune side by side, the best confirmed on fresh seeds, and what follows from that."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from dataclasses import replace
from typing import Any

import ray
from rich.console import Console

from corrector.dreambooth import checkpoint
from corrector.evaluation.objective import Choice
from corrector.evaluation.rungs import confirmation
from corrector.prompts.search import Configuration
from corrector.record.search import PromptSearchResult, SearchResult
from corrector.registry import RegistryError
from corrector.registry.searches import known_good
from corrector.report import write_search_report
from corrector.settings import Settings
from jobs.correction.driver import POLL_SECONDS, CorrectionJob
from jobs.inputs.batch import BatchWork, check_batch
from jobs.inputs.run_folder import write_json
from jobs.lanes.plan import LaneLimits, LanePlan
from jobs.lanes.pool import LanePool
from jobs.lanes.provisioning import connect, encode_on_cluster, plan_on_cluster, work_items
from jobs.lanes.queue import SETTLED, Progress
from jobs.lanes.ray_train import start_queue
from jobs.lanes.stopping import StopSignal
from jobs.tuning.choice import choose_trial, finalists
from jobs.tuning.desk import TrialDesk
from jobs.tuning.lane import TrialLaneSettings
from jobs.tuning.plan import PromptSearchPlan, grouped, plan_search
from jobs.tuning.proposals import affordable, proposals
from jobs.tuning.report import SearchLog, describe, print_choices
from jobs.tuning.results import REPORT_FILE, RESULT_FILE, read_prompt, write_best_batch
from jobs.tuning.scheduler import GroupSearch, SlotRelease, make_tuner
from jobs.tuning.tracking import SearchTracking
from jobs.tuning.trials import TrialGroup

logger = logging.getLogger(__name__)

SLOTS = 8
"""Of the lanes of a device, unless somebody limits otherwise: that many fill it, and each is a process of Tune's."""
TUNE_SECONDS = 60.0
"""For Tune to put away its processes, at most."""
WARM_STARTS = 2
"""Configurations of earlier searches that are tried first: a guess for each prompt that leaves room for others."""


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
        """`resume`: go on with the trials in the run's folder; `warm_start`: try first what earlier searches chose."""
        self._work = work
        self._console = console
        self._limits = limits or LaneLimits()
        self._tracking_uri = tracking_uri
        self._resume = resume
        self._warm_start = warm_start
        self._stop = StopSignal()
        self._started = time.monotonic()
        self._searches: list[PromptSearchPlan] = []
        self._groups: dict[str, list[PromptSearchPlan]] = {}
        self._choices: dict[str, Choice] = {}
        self._tracking = SearchTracking(self._result, tracking_uri=tracking_uri, root=work.run.registry)

    def run(self) -> int:
        """Search, confirm, and correct the batch with what was found best; returns the exit status."""
        result, lost = self.search()
        if self._stop.requested:
            return 130
        if lost is not None:
            self._console.print(lost, style="red", markup=False, highlight=False)
            return 1
        self._tracking.finish(result)
        own = {each.plan.entry.name: each.plan.entry.hyperparameters for each in self._searches}
        write_search_report(result, own, self._work.run.path / REPORT_FILE)
        print_choices(result, self._console)
        return self._correct_best()

    def search(self) -> tuple[SearchResult, str | None]:
        """Run and confirm the trials; returns what is known of them, and why the lanes were lost if they were."""
        self._work.run.create()
        items = work_items(self._work, self._work.prompts)
        self._searches = plan_search(self._work, items, resume=self._resume)
        self._groups = grouped(self._searches, self._work.batch.search)
        connect()
        groups = {
            name: TrialGroup(name, tuple(each.plan for each in group)) for name, group in self._groups.items()
        }
        queue = start_queue(TrialDesk, groups)  # its process starts while lanes are planned
        plan = self._plan_lanes()
        encode_on_cluster(self._work, items, plan)
        with self._stop.listening("submit it again with --resume to go on"):
            lost = self._search(queue, groups, plan)
        result = self._result()
        write_json(self._work.run.path / RESULT_FILE, result.model_dump(mode="json"))
        return result, lost

    def _plan_lanes(self) -> LanePlan:
        """Lanes for as many of the longest trials as there are."""
        search = self._work.batch.search
        longest = [each.longest for each in self._searches for _ in range(self._trials(each))]
        limits = replace(self._limits, workers=1, machine_slots=SLOTS)
        plan = plan_on_cluster(self._work, longest, limits, self._console)
        settings = TrialLaneSettings(**vars(plan.settings), search=search, gate=self._work.batch.gate)
        return replace(plan, settings=settings)

    def _trials(self, each: PromptSearchPlan) -> int:
        """Trials of a prompt at most; the prompt's own configuration may come on top of a grid."""
        search = self._work.batch.search
        return affordable(search, each.plan.entry) + (search.sampler == "grid")

    def _search(self, queue: Any, groups: dict[str, TrialGroup], plan: LanePlan) -> str | None:
        """Run all trials and confirm the best; returns why the lanes were lost, None where they were not."""
        pool = LanePool(queue, self._work.spec, plan, self._work.run.lanes)
        log = SearchLog(self._searches, self._console)
        search = self._work.batch.search
        known = self._known_good()
        sources = {
            name: proposals(search, group[0].plan.entry, recorded=group[0].recorded, known_good=known)
            for name, group in self._groups.items()
        }
        trials = sum(self._trials(group[0]) for group in self._groups.values())
        proposed = GroupSearch(sources, groups, trials, opened=queue.open.remote)
        release = SlotRelease(queue)
        capacity = plan.settings.slots * plan.lanes_on(ray.cluster_resources())
        tuner = make_tuner(
            queue,
            groups,
            proposed,
            release,
            search,
            concurrent=max(1, capacity // max(map(len, self._groups.values()))),
            storage=self._work.run.path / "tune",
            name=f"search-{uuid.uuid4().hex[:8]}",
        )
        tuning = threading.Thread(target=_fit, args=(tuner,), name="tune", daemon=True)
        tuning.start()
        lost = self._tend(queue, pool, log, tuning, proposed, release)
        if lost is None and not self._stop.requested:
            lost = self._confirm(queue, pool, log)
        ray.get(queue.complete.remote())
        if self._stop.requested or lost is not None:
            pool.stop()
        else:
            pool.join()
        tuning.join(TUNE_SECONDS)
        return lost

    def _known_good(self) -> list[Configuration]:
        """What earlier searches on the same base chose; nothing where the registry cannot tell."""
        if not self._warm_start:
            return []
        own = [each.plan.work_id for each in self._searches]
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

    def _tend(
        self,
        queue: Any,
        pool: LanePool,
        log: SearchLog,
        tuning: threading.Thread,
        proposed: GroupSearch,
        release: SlotRelease,
    ) -> str | None:
        """Keep the lanes going until Tune has done with every trial; returns why they were lost.

        Tune takes some seconds more to put away its processes: nobody need wait for that.
        """
        lost = None
        while tuning.is_alive() and release.released != proposed.final_count:
            snapshot: list[Progress] = ray.get(queue.snapshot.remote())
            log.update(snapshot)
            self._tracking.update()
            lost = lost or pool.reconcile(sum(each.state not in SETTLED for each in snapshot))
            if self._stop.requested or lost is not None:
                proposed.halted = True
                ray.get(queue.stop.remote())
            time.sleep(POLL_SECONDS / 2)
        log.update(ray.get(queue.snapshot.remote()))
        return lost

    def _confirm(self, queue: Any, pool: LanePool, log: SearchLog) -> str | None:
        """Score the best trials of every group again, on fresh seeds, and choose; returns why the lanes were lost."""
        work = self._work
        fresh = confirmation(work.batch.evaluation, work.spec.num_inference_steps)
        # A lane may be at the last steps of a trial that Tune has stopped, which then has come to its end after all.
        lost = self._settle(queue, pool, log)
        if lost is not None or self._stop.requested:
            return lost
        for group in self._groups.values():
            for index in finalists([self._read(each) for each in group], work.batch.search.confirmed):
                for each in group:
                    ray.get(queue.confirm.remote(each.plan.entry.name, index, fresh))
        lost = self._settle(queue, pool, log)
        if lost is not None or self._stop.requested:
            return lost
        for group in self._groups.values():
            choice = choose_trial(work, group, [self._read(each) for each in group])
            if choice is not None:
                self._choices |= {each.plan.entry.name: choice for each in group}
        return None

    def _settle(self, queue: Any, pool: LanePool, log: SearchLog) -> str | None:
        """Keep the lanes going until no trial is under way; returns why they were lost."""
        while not self._stop.requested:
            snapshot: list[Progress] = ray.get(queue.snapshot.remote())
            log.update(snapshot)
            under_way = sum(each.state not in SETTLED for each in snapshot)
            if not under_way:
                break
            lost = pool.reconcile(under_way)
            if lost is not None:
                return lost
            time.sleep(POLL_SECONDS / 2)
        return None

    def _read(self, each: PromptSearchPlan) -> PromptSearchResult:
        """What is known of one prompt so far."""
        return read_prompt(each.plan, self._choices.get(each.plan.entry.name))

    def _result(self) -> SearchResult:
        """What is known of the search so far."""
        work = self._work
        return SearchResult(
            run=work.run.run,
            batch=str(work.batch.path),
            base=work.spec.name,
            base_revision=work.spec.revision,
            objective=work.batch.search.objective,
            extractor=work.batch.search.extractor,
            seconds=round(time.monotonic() - self._started, 1),
            prompts=tuple(self._read(each) for each in self._searches),
        )

    def _correct_best(self) -> int:
        """Hand the chosen trials' fine-tunes to the ordinary job, which samples, judges and registers them."""
        chosen: dict[str, Configuration] = {}
        for each in self._searches:
            choice = self._choices.get(each.plan.entry.name)
            if choice is not None:
                chosen[each.plan.entry.name] = each.plan.trial_folder(int(choice.trial)).configuration or {}
        if not chosen:
            return 1
        path = write_best_batch(self._work, chosen)
        for what, file in (("search", self._work.run.path / REPORT_FILE), ("batch", path)):
            self._console.print(f"{what}  {file}", highlight=False, soft_wrap=True)
        settings = Settings.from_environment()
        # The original batch was allowed to lie where it lay, beside its exemplars.
        roots = (*settings.exemplar_roots, self._work.batch.path.parent)
        best = check_batch(
            path,
            settings=replace(settings, exemplar_roots=roots),
            storage=self._work.run.storage,
            run=self._work.run.run,
            base=self._work.spec.reference,
            precision=self._work.spec.precision,
        )
        plans = {each.plan.entry.name: each.plan for each in self._searches}
        for work in best.missing:
            if work.folder.is_sampled or work.folder.is_recorded:
                continue
            plan, choice = plans[work.entry.name], self._choices[work.entry.name]
            state = checkpoint.read_state(plan.trial_folder(int(choice.trial)).checkpoint)
            state["run"]["name"] = work.work_id
            checkpoint.write_state(state, work.folder.checkpoint)
        status = CorrectionJob(
            best, self._console, limits=self._limits, tracking_uri=self._tracking_uri
        ).run()
        return status if len(chosen) == len(self._searches) else max(status, 1)


def _fit(tuner: Any) -> None:
    try:
        tuner.fit()
    except Exception:
        logger.exception("Ray Tune ended; what trials there are count")
