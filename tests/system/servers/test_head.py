"""The local head, end to end: real heads, real jobs, and nothing left of either."""

from __future__ import annotations

import io
import ipaddress
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster import head as heads
from cluster import local, processes
from cluster.follow import run_job
from cluster.head import Head, HeadOptions
from corrector.errors import UserError
from tests.support.commands import run
from tests.support.paths import PROJECT
from tests.support.servers import SharedServers
from tests.support.waiting import wait_until

on_the_runs_head = pytest.mark.xdist_group("ray")

LIMIT_S = 120
"""For each wait, of which none takes 30 s where the machine has nothing else to do."""

# A job that has started a process of its own, and that ends once it was told to stop and may.
PATIENT_JOB = """
import pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def save(number, frame):
    print("saving", flush=True)
    while not pathlib.Path(sys.argv[1]).exists():
        time.sleep(0.05)
    print("state saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("working", flush=True)
signal.pause()
"""

# What a job finds in its working directory when that was uploaded.
LIST_UPLOAD = """
from pathlib import Path
files = [file for file in Path.cwd().rglob("*") if file.is_file()]
print("top:", *sorted({file.relative_to(Path.cwd()).parts[0] for file in files}))
print("bytes:", sum(file.stat().st_size for file in files))
import corrector
print("own:", Path(corrector.__file__).is_relative_to(Path.cwd()))
"""


def written(state: Path) -> Head:
    """The head of the state folder, read without looking whether it lives."""
    raw = json.loads((state / "head.json").read_text())
    return Head(**{**raw, "owner": raw["owner"] and tuple(raw["owner"])})


@pytest.fixture
def head(ray_head: Head, monkeypatch: pytest.MonkeyPatch) -> Head:
    """The run's head, and the environment of a program that submits jobs to it."""
    for name, value in ray_head.environment.items():
        monkeypatch.setenv(name, value)
    return ray_head


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose head, if any is left, is stopped in the end."""
    yield tmp_path
    if (left := heads.current(tmp_path)) is not None:
        heads.stop(left, state=tmp_path)


@on_the_runs_head
@pytest.mark.parametrize(("ending", "status"), [("exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_exit_status_of_the_job_is_passed_on(head: Head, ending: str, status: int) -> None:
    output = io.StringIO()
    job = ["python", "-c", f"print('said last', flush=True); {ending}"]
    assert run_job(head, job, {}, output=output) == status
    assert "said last\n" in output.getvalue()


@on_the_runs_head
def test_the_working_directory_can_be_uploaded_and_is_small(head: Head) -> None:
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(head.dashboard_url)
    job = client.submit_job(
        entrypoint=shlex.join(["python", "-c", LIST_UPLOAD]), runtime_env={"working_dir": str(PROJECT)}
    )
    wait_until(lambda: client.get_job_status(job).is_terminal(), otherwise=lambda: client.get_job_logs(job))
    logs = client.get_job_logs(job)
    assert client.get_job_status(job) == "SUCCEEDED", logs
    said = dict(line.split(": ", 1) for line in logs.splitlines() if line.startswith(("top", "bytes", "own")))
    assert {"corrector", "jobs", "pyproject.toml"} <= set(said["top"].split())
    assert not {".git", ".venv", ".local", "runs", "tests"} & set(said["top"].split())
    assert int(said["bytes"]) < 48 * 1024**2
    assert said["own"] == "True"


def test_a_request_without_the_token_is_refused(ray_head: Head) -> None:
    token = Path(ray_head.token_file)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    jobs = f"{ray_head.dashboard_url}/api/jobs/"
    for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(jobs, headers=headers), timeout=LIMIT_S)
        assert refused.value.code in (401, 403)
    given = {"Authorization": f"Bearer {token.read_text()}"}
    with urllib.request.urlopen(urllib.request.Request(jobs, headers=given), timeout=LIMIT_S) as answer:
        assert answer.status == 200


def test_every_server_listens_on_the_loopback_interface_only(ray_head: Head) -> None:
    listening = []
    for process in processes.find(ray_head.signs):
        try:
            connections = process.net_connections(kind="inet")
        except psutil.NoSuchProcess:  # a worker whose job has ended meanwhile
            continue
        listening += [each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN]
    assert len(listening) > 5
    for address in map(ipaddress.ip_address, listening):
        mapped = getattr(address, "ipv4_mapped", None)
        assert (mapped or address).is_loopback, f"something listens on {address}"


def test_nothing_reports_usage(ray_head: Head) -> None:
    dashboard = (Path(ray_head.scratch) / "session_latest" / "logs" / "dashboard.log").read_text()
    assert "Loading SubprocessModule: <class 'ray.dashboard.modules.job.job_head.JobHead'>" in dashboard
    assert "Usage reporting" not in dashboard, "what the module says when it runs, on or off"


def test_a_second_start_shows_the_running_head(ray_head: Head, shared_servers: SharedServers) -> None:
    again = run(local.main, "start", f"--state={shared_servers.states.head}")
    assert again.returncode == 0
    assert ray_head.dashboard_url in again.stdout
    assert written(shared_servers.states.head) == ray_head


def test_a_start_that_takes_too_long_shows_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    late = run(local.main, "start", "--start-limit=0", f"--state={tmp_path}")
    assert late.returncode == 2
    assert "was not ready within 0 s" in late.stderr
    assert str(tmp_path / "head.log") in late.stderr
    assert not (tmp_path / "head.json").exists()


def test_an_interrupted_run_stops_its_job_in_order_and_leaves_nothing(state: Path) -> None:
    """Before it, a `run` is killed outright while its head starts."""
    left_behind = _kill_while_starting(state)
    saved = state / "saved"
    interrupted, log = _start_run(state, PATIENT_JOB, str(saved))
    _await_line("working", log, interrupted)
    assert processes.find(left_behind.signs) == [], "the next run clears away what a killed one left"
    running = written(state)
    with pytest.raises(UserError, match=f"pid {interrupted.pid}"):
        heads.start(HeadOptions(), state=state, owned=True)

    interrupted.send_signal(signal.SIGINT)
    _await_line("saving", log, interrupted)
    saved.touch()
    assert interrupted.wait(LIMIT_S) == 130
    assert "state saved" in log.read_text()
    assert processes.find(running.signs) == []
    assert not Path(running.scratch).exists()
    assert not (state / "head.json").exists()
    assert (state / "logs" / "raylet.out").exists()


def _kill_while_starting(state: Path) -> Head:
    """Kill a `run` outright while its head starts; what it leaves behind."""
    killed, log = _start_run(state, "")
    wait_until(
        lambda: (state / "head.json").exists() and processes.find(written(state).signs),
        otherwise=log.read_text,
    )
    assert killed.poll() is None, log.read_text()
    killed.kill()
    killed.wait()
    left_behind = written(state)
    assert left_behind.abandoned()
    assert processes.find(left_behind.signs)
    return left_behind


def _start_run(state: Path, *program: str) -> tuple[subprocess.Popen[bytes], Path]:
    """A process that runs the program as a job of a head of its own, and its log."""
    log = state / "run.log"
    options = (f"--state={state}", f"--services={state / 'none'}", "--num-cpus=1")
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", "cluster.local", "run", *options, "--", "python", "-c", *program],
            cwd=PROJECT,
            env={**os.environ, "RAY_JOB_STOP_WAIT_TIME_S": str(LIMIT_S)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return started, log


def _await_line(line: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    def said() -> bool:
        assert process.poll() is None, log.read_text()
        return f"{line}\n" in log.read_text()

    wait_until(said, otherwise=log.read_text)
