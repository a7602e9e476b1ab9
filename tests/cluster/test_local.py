"""The local head, end to end: real heads, real jobs, and nothing left of either."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster import head as heads
from cluster import processes
from cluster.head import Head
from cluster.state import PROJECT

# A job that says what it is told to stop by, and that has started a process of its own.
PATIENT_JOB = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def save(number, frame):
    time.sleep(1.0)
    print("state saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("working", flush=True)
time.sleep(600)
"""

# What a worker of a job finds: the project's packages, and the interpreter that the head runs on.
LOOK_AROUND = """
import ray
@ray.remote
def look():
    import sys, corrector
    return corrector.__file__, sys.prefix
ray.init(logging_level="ERROR")
print(*ray.get(look.remote()), sep="\\n")
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


def local(*arguments: str | Path, state: Path) -> list[str]:
    command, *rest = map(str, arguments)
    if command == "run":
        rest.insert(0, f"--services={state / 'none'}")
    return [sys.executable, "-m", "cluster.local", command, f"--state={state}", *rest]


def call(*arguments: str | Path, state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        local(*arguments, state=state), cwd=PROJECT, capture_output=True, text=True, timeout=200, check=False
    )


def written(state: Path) -> Head:
    """The head of the state folder, read without looking whether it lives."""
    raw = json.loads((state / "head.json").read_text())
    return Head(**{**raw, "owner": raw["owner"] and tuple(raw["owner"])})


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def head(state: Path) -> Iterator[Head]:
    started = call("start", "--num-cpus=1", state=state)
    assert started.returncode == 0, started.stderr
    running = written(state)
    try:
        yield running
    finally:
        stopped = call("stop", state=state)
    assert stopped.returncode == 0, stopped.stderr
    assert processes.find(running.signs) == []
    assert not Path(running.scratch).exists()
    assert (state / "logs" / "raylet.out").exists()
    assert call("status", state=state).returncode == 3


@pytest.mark.parametrize(
    ("ending", "status"), [("exit(0)", 0), ("exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_exit_status_of_the_job_is_passed_on(head: Head, state: Path, ending: str, status: int) -> None:
    ran = call("run", "--", "python", "-c", f"print('said last', flush=True); {ending}", state=state)
    assert ran.returncode == status, ran.stderr
    assert "said last\n" in ran.stdout
    assert processes.find(head.signs), "a head that was there before must stay"


def test_workers_see_the_working_tree_and_the_environment_of_the_head(head: Head, state: Path) -> None:
    ran = call("run", "--", "python", "-c", LOOK_AROUND, state=state)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-2:] == [str(PROJECT / "corrector" / "__init__.py"), sys.prefix]


def test_the_working_directory_can_be_uploaded_and_is_small(head: Head) -> None:
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", f"--working-dir={PROJECT}", "--"]
    ran = subprocess.run(
        [*submit, "python", "-c", LIST_UPLOAD],
        env={**os.environ, **head.environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = dict(
        line.split(": ", 1) for line in ran.stdout.splitlines() if line.startswith(("top", "bytes", "own"))
    )
    assert {"corrector", "jobs", "pyproject.toml"} <= set(said["top"].split())
    assert not {".git", ".venv", ".local", "runs", "tests"} & set(said["top"].split())
    assert int(said["bytes"]) < 48 * 1024**2
    assert said["own"] == "True"


def test_a_request_without_the_token_is_refused(head: Head) -> None:
    token = Path(head.token_file)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    jobs = f"{head.dashboard_url}/api/jobs/"
    for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(jobs, headers=headers), timeout=30)
        assert refused.value.code in (401, 403)
    given = {"Authorization": f"Bearer {token.read_text()}"}
    with urllib.request.urlopen(urllib.request.Request(jobs, headers=given), timeout=30) as answer:
        assert answer.status == 200


def test_every_server_listens_on_the_loopback_interface_only(head: Head) -> None:
    listening = [
        connection.laddr.ip
        for process in processes.find(head.signs)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 5
    for address in map(ipaddress.ip_address, listening):
        mapped = getattr(address, "ipv4_mapped", None)
        assert (mapped or address).is_loopback, f"something listens on {address}"


def test_nothing_reports_usage(head: Head) -> None:
    dashboard = (Path(head.scratch) / "session_latest" / "logs" / "dashboard.log").read_text()
    assert "Loading SubprocessModule: <class 'ray.dashboard.modules.job.job_head.JobHead'>" in dashboard
    assert "Usage reporting" not in dashboard, "what the module says when it runs, on or off"


def test_a_second_start_shows_the_running_head(head: Head, state: Path) -> None:
    again = call("start", state=state)
    assert again.returncode == 0
    assert head.dashboard_url in again.stdout
    assert written(state) == head


def test_a_taken_port_stops_the_start_by_name(head: Head, tmp_path: Path) -> None:
    refused = call("start", f"--dashboard-port={head.dashboard_port}", state=tmp_path)
    assert refused.returncode == 2
    assert f"dashboard port {head.dashboard_port} is taken on 127.0.0.1" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "head.json").exists()


def test_a_start_that_takes_too_long_shows_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    late = call("start", "--start-limit=1", state=tmp_path)
    assert late.returncode == 2
    assert "was not ready within 1 s" in late.stderr
    assert str(tmp_path / "head.log") in late.stderr
    assert not (tmp_path / "head.json").exists()


@pytest.mark.parametrize("content", ["", '{"mark": "feedc0de"', None])
def test_a_stale_state_file_does_not_count(tmp_path: Path, content: str | None) -> None:
    gone = Head(
        "feedc0de", 20000, 20001, "token", str(tmp_path / "scratch"), owner=(os.getpid(), 0.0), session=1
    )
    (tmp_path / "head.json").write_text(
        json.dumps(gone.__dict__) if content is None else content  # a head that has died, or a file cut short
    )
    assert heads.current(tmp_path) is None
    assert not (tmp_path / "head.json").exists()


def test_an_interrupted_run_stops_its_job_in_order_and_leaves_nothing(tmp_path: Path) -> None:
    left_behind = _kill_while_starting(tmp_path)

    interrupted, log = _run_until_working(tmp_path)
    assert processes.find(left_behind.signs) == [], "the next run clears away what a killed one left"
    running = written(tmp_path)
    refused = call("run", "--", "python", "-c", "", state=tmp_path)
    assert refused.returncode == 2
    assert f"pid {interrupted.pid}" in refused.stderr

    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(60) == 130
    assert "state saved" in log.read_text()
    assert processes.find(running.signs) == []
    assert not Path(running.scratch).exists()
    assert not (tmp_path / "head.json").exists()


def _kill_while_starting(state: Path) -> Head:
    """Kill a `run` outright while its head starts; what it leaves behind."""
    run = subprocess.Popen(local("run", "--", "python", "-c", "", state=state), cwd=PROJECT)
    deadline = time.monotonic() + 60
    while not (state / "head.json").exists() or not processes.find(written(state).signs):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run.kill()
    run.wait()
    left_behind = written(state)
    assert left_behind.abandoned()
    assert processes.find(left_behind.signs)
    return left_behind


def _run_until_working(state: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """`run` of the patient job, returned once the job has said that it works."""
    log = state / "run.log"
    with log.open("wb") as output:
        run = subprocess.Popen(
            local("run", "--num-cpus=1", "--", "python", "-c", PATIENT_JOB, state=state),
            cwd=PROJECT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + 150
    while "working\n" not in log.read_text():
        assert run.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    return run, log
