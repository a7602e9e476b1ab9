"""What the state folder of a Ray head tells: which processes are its own, and what does not count."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cluster import head as heads
from cluster import local, ports, processes
from cluster.head import Head
from tests.support.commands import run

GONE = Head("feedc0de", 20000, 20001, "token", "scratch", session=1)


def write_state(head: Head, state: Path) -> None:
    raw = asdict(head)
    written = {"mark": raw.pop("label"), **raw, "owner": None}  # as commit 19349a3 wrote it
    (state / "head.json").write_text(json.dumps(written))


@pytest.mark.parametrize("content", ["", '{"mark": "feedc0de"', '{"mark": "feedc0de"}', None])
def test_a_stale_state_file_does_not_count(tmp_path: Path, content: str | None) -> None:
    if content is None:  # a head that has died
        write_state(replace(GONE, scratch=str(tmp_path / "scratch")), tmp_path)
    else:  # a file cut short, or of another version
        (tmp_path / "head.json").write_text(content)
    assert heads.current(tmp_path) is None
    assert not (tmp_path / "head.json").exists()


def test_stop_ends_the_processes_of_the_head_and_keeps_its_logs(tmp_path: Path) -> None:
    logs = tmp_path / "scratch" / "session_latest" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("log")
    write_state(replace(GONE, scratch=str(tmp_path / "scratch")), tmp_path)
    state = f"--state={tmp_path}"
    labelled = {**os.environ, processes.LABEL_VARIABLE: GONE.label}
    with subprocess.Popen(["sleep", "600"], env=labelled) as process:
        status = run(local.main, "status", state)
        assert status.returncode == 0 and f"{GONE.gcs_address}: 1 process," in status.stdout
        stopped = run(local.main, "stop", state)
        assert process.wait(60) == -signal.SIGTERM
    assert stopped.returncode == 0 and "1 processes ended" in stopped.stdout
    assert (tmp_path / "logs" / "raylet.out").read_text() == "log"
    assert not (tmp_path / "scratch").exists()
    assert run(local.main, "status", state).returncode == 3
    assert run(local.main, "stop", state).returncode == 0


def test_a_taken_port_stops_the_start_by_name(tmp_path: Path) -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        refused = run(local.main, "start", f"--dashboard-port={port}", f"--state={tmp_path}")
    assert refused.returncode == 2
    assert f"dashboard port {port} is taken on 127.0.0.1" in refused.stderr
    assert not (tmp_path / "head.json").exists()
