"""Ray on this machine, end to end: a head that stays, an instance of one command, and nothing left of either."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from cluster import head as heads
from cluster import local
from cluster.head import Head
from tests.support.commands import run
from tests.support.paths import PROJECT
from tests.support.processes import beyond_loopback, listening, title
from tests.support.servers import SharedServers
from tests.support.waiting import wait_until

on_the_runs_head = pytest.mark.xdist_group("ray")

LIMIT_S = 120
"""For each wait, of which none takes 30 s where the machine has nothing else to do."""

# A driver with a worker that is busy, and that saves its state when it is told to stop.
PATIENT_DRIVER = """
import os, pathlib, sys, time
import ray
from jobs.lanes.stopping import StopSignal
@ray.remote
def work():
    time.sleep(600)
@ray.remote(num_cpus=0)
def save(path):
    pathlib.Path(path).touch()
ray.init(log_to_driver=False)
busy = work.remote()
stop = StopSignal()
with stop.listening("submit again"):
    address = ray._private.worker._global_node.address
    print("working", os.environ["RAY_AUTH_MODE"], address, ray.cluster_resources(), flush=True)
    while not stop.requested:
        time.sleep(0.05)
ray.get(save.remote(sys.argv[1]))
sys.exit(130)
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


@pytest.fixture
def head(ray_head: Head, monkeypatch: pytest.MonkeyPatch) -> Head:
    """The run's head, and the environment of a program that submits jobs to it."""
    for name, value in ray_head.environment.items():
        monkeypatch.setenv(name, value)
    return ray_head


@pytest.mark.parametrize(("ending", "status"), [("exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)])
def test_run_ends_as_the_command_ends(tmp_path: Path, ending: str, status: int) -> None:
    process, log = start_run(tmp_path, f"print('said last', flush=True); {ending}")
    assert process.wait(LIMIT_S) == status
    assert log.read_text().endswith("said last\n")


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
    addresses = listening(ray_head.processes.find())
    assert len(addresses) > 5
    assert not beyond_loopback(addresses)


def test_nothing_reports_usage(ray_head: Head) -> None:
    dashboard = (Path(ray_head.scratch) / "session_latest" / "logs" / "dashboard.log").read_text()
    assert "Loading SubprocessModule: <class 'ray.dashboard.modules.job.job_head.JobHead'>" in dashboard
    assert "Usage reporting" not in dashboard, "what the module says when it runs, on or off"


def test_a_second_start_shows_the_running_head(ray_head: Head, shared_servers: SharedServers) -> None:
    again = run(local.main, "start", f"--state={shared_servers.states.head}")
    assert again.returncode == 0
    assert ray_head.dashboard_url in again.stdout
    assert heads.current(shared_servers.states.head) == ray_head


def test_a_start_that_takes_too_long_shows_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    late = run(local.main, "start", "--start-limit=0", f"--state={tmp_path}")
    assert late.returncode == 2
    assert "was not ready within 0 s" in late.stderr
    assert str(tmp_path / "head.log") in late.stderr
    assert not (tmp_path / "head.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_an_instance_is_closed_to_others_and_ends_with_its_command(
    tmp_path: Path, number: signal.Signals
) -> None:
    saved = tmp_path / "saved"
    command, log = working_run(tmp_path, PATIENT_DRIVER, str(saved))
    assert "working token 127.0.0.1:" in log.read_text() and "'CPU': 1.0" in log.read_text()
    everything = of_session(command.pid)
    assert any("work" in title(process) for process in everything)
    addresses = listening(everything)
    assert len(addresses) > 5
    assert not beyond_loopback(addresses)

    os.killpg(command.pid, number)  # as a terminal does
    assert command.wait(LIMIT_S) == (-number if number == signal.SIGKILL else 130)
    assert saved.exists() == (number != signal.SIGKILL)
    wait_until(lambda: not of_session(command.pid), otherwise=lambda: str(of_session(command.pid)))

    scratch = (tmp_path / "instances" / str(command.pid)).resolve()
    assert (scratch / "ray" / "session_latest" / "logs").is_dir()
    following, _ = start_run(tmp_path, "")
    assert following.wait(LIMIT_S) == 0
    assert not scratch.exists(), "the next run clears away what the last one left"


def working_run(state: Path, *program: str) -> tuple[subprocess.Popen[bytes], Path]:
    """As `start_run`, once the program has printed "working" or ended.

    Ray gives a raylet 30 s to start, whatever the machine does; where it gave up, the program is started again.
    """
    command, log = start_run(state, *program)
    wait_until(lambda: "working" in log.read_text() or command.poll() is not None, otherwise=log.read_text)
    gave_up = "timed out during startup" in log.read_text()
    return working_run(state, *program) if gave_up else (command, log)


def start_run(state: Path, *program: str) -> tuple[subprocess.Popen[bytes], Path]:
    """`python -m cluster.local run -- python -c PROGRAM` in a session of its own, and its log; under `nohup` as without it."""
    log = state / "run.log"
    options = (f"--state={state}", f"--services={state / 'none'}", "--num-cpus=1")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "cluster.local", "run", *options, "--", "python", "-c", *program]
    with log.open("wb") as output:
        started = subprocess.Popen(
            ["env", "--default-signal=HUP", *command],
            cwd=PROJECT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return started, log


def of_session(session: int) -> list[psutil.Process]:
    """The living processes of a session (as of setsid)."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
