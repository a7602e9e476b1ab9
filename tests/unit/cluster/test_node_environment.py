"""cluster/node.env, and cluster/node.sh, which exports it in the image's shells."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cluster import head
from serving import edge
from tests.support.launcher import node_environment
from tests.support.paths import PROJECT


def test_a_local_head_has_the_environment_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_STOP_WAIT_TIME_S", raising=False)
    local = head._environment(head.Head("label", 1, 2, str(tmp_path / "token"), "scratch"), metrics_port=3)
    shared = {name: value for name, value in node_environment().items() if name.startswith("RAY_")}
    del shared["RAY_LOGGING_CONFIG_ENCODING"]  # on this machine a person reads the lines
    assert len(shared) == 4
    assert {name: local[name] for name in shared} == shared
    assert node_environment()[edge.VARIABLE] == edge.VALUE


def _shell(home: Path, app: Path, **variables: str) -> dict[str, str]:
    """The variables of a shell that has sourced node.sh, as if the image's code lay in `app`."""
    script = home / "node.sh"
    script.write_text((PROJECT / "cluster" / "node.sh").read_text().replace("/app/", f"{app}/"))
    done = subprocess.run(
        ["bash", "-c", f". {script} && env -0"],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


def test_a_shell_of_the_image_has_every_variable(tmp_path: Path) -> None:
    found = _shell(tmp_path, PROJECT)
    assert {name: found[name] for name in node_environment()} == node_environment()
    assert found["PATH"].startswith("/opt/venv/bin:")


def test_what_is_set_wins_over_the_users_file_and_this_over_every_nodes(tmp_path: Path) -> None:
    (tmp_path / ".prompt-corrector.env").write_text(
        "# storage\n\nHF_HOME=/mine\nCORRECTOR_CACHE=/mine\nCORRECTOR_DATABASE=postgresql://u:$(touch x)p@h/d?a=b"
    )
    found = _shell(tmp_path, PROJECT, CORRECTOR_CACHE="/given")
    assert found["CORRECTOR_CACHE"] == "/given"
    assert found["HF_HOME"] == "/mine"
    assert found["CORRECTOR_DATABASE"] == "postgresql://u:$(touch x)p@h/d?a=b"
    assert found["RAY_AUTH_MODE"] == "token"
    assert not (tmp_path / "x").exists()
