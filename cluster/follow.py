"""Submits a command to a head as a Ray job, shows its log as it grows, and passes its exit status on."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cluster.head import JOB_STOP_WAIT_S, Head
from corrector.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

POLL_S = 0.5
SILENCE_S = 30.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_job(
    head: Head, command: list[str], environment: Mapping[str, str], *, output: TextIO | None = None
) -> int:
    """Run `command` in the present folder as a job of `head` and return its exit status.

    `environment` is added to the head's for the job and its workers.

    The log goes to `output`, or to standard output, as it grows. The first interruption (SIGINT, SIGTERM or
    SIGHUP) stops the job through Ray's API, which gives it time to save its state, and is waited for; a second
    one returns at once. Both give 128 + the signal's number, as a shell does.
    """
    output = output or sys.stdout
    os.environ.update(head.environment)
    from ray.job_submission import JobSubmissionClient  # reads the environment when it is imported

    client = JobSubmissionClient(head.dashboard_url)
    job = client.submit_job(
        entrypoint=_entrypoint(command, output),
        runtime_env={"env_vars": dict(environment)} if environment else None,
    )
    return asyncio.run(_Following(client, job, output).run())


def _entrypoint(command: list[str], output: TextIO) -> str:
    """The job's shell line: the caller's folder, and its terminal's width and colours where it has one."""
    terminal = []
    if output.isatty():
        terminal = ["env", "FORCE_COLOR=1", f"COLUMNS={shutil.get_terminal_size().columns}"]
    return f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join([*terminal, *command])}"


class _Following:
    """One job being followed: its log and its status side by side, and the signals that interrupt it."""

    def __init__(self, client: JobSubmissionClient, job: str, output: TextIO) -> None:
        self._client = client
        self._job = job
        self._output = output
        self._shown = 0
        self._signal: signal.Signals | None = None
        self._stop: asyncio.Task[bool] | None = None
        self._abandon = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._interrupt, number)
        log = asyncio.create_task(self._show_log())
        end = asyncio.create_task(self._wait_for_end())
        abandon = asyncio.create_task(self._abandon.wait())
        try:
            await asyncio.wait([end, abandon], return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                await self._show_rest(log)
                return self._status(end.result())
            return self._status(None)
        finally:
            for task in (log, end, abandon):
                task.cancel()
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _interrupt(self, number: signal.Signals) -> None:
        if self._signal is not None:
            self._abandon.set()
            return
        self._signal = number
        print(
            f"\n{number.name}: stopping the job; {JOB_STOP_WAIT_S} s to save its state (again: at once)",
            file=sys.stderr,
            flush=True,
        )
        self._stop = asyncio.create_task(asyncio.to_thread(self._client.stop_job, self._job))

    async def _show_log(self) -> None:
        async for lines in self._client.tail_job_logs(self._job):
            self._show(lines)

    async def _show_rest(self, log: asyncio.Task[None]) -> None:
        """What the job wrote last: Ray looks for new lines once a second, and may not have looked."""
        log.cancel()
        written = await asyncio.to_thread(self._client.get_job_logs, self._job)
        self._show(written[self._shown :])

    def _show(self, lines: str) -> None:
        self._shown += len(lines)
        self._output.write(lines)
        self._output.flush()

    async def _wait_for_end(self) -> JobDetails:
        answered = time.monotonic()
        while True:
            try:
                job = await asyncio.to_thread(self._client.get_job_info, self._job)
            except (OSError, RuntimeError) as error:
                if time.monotonic() - answered > SILENCE_S:
                    raise UserError(f"the Ray head no longer answers; the job is lost: {error}") from error
            else:
                answered = time.monotonic()
                if job.status.is_terminal():
                    return job
            await asyncio.sleep(POLL_S)

    def _status(self, job: JobDetails | None) -> int:
        if self._signal is not None:
            return 128 + self._signal
        assert job is not None
        if job.driver_exit_code is None:
            if job.message:
                print(job.message, file=sys.stderr, flush=True)
            return 0 if job.status == "SUCCEEDED" else 1
        return job.driver_exit_code if job.driver_exit_code >= 0 else 128 - job.driver_exit_code
