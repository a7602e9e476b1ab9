"""Registries and servers of other people: moved folders, copies, and addresses at which no MLflow answers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from corrector.files import file_sha256
from corrector.record.correction_record import WEIGHTS_FILE
from corrector.registry import RegistryError, fetch, local_uri, register
from corrector.registry.__main__ import main
from corrector.registry.listing import find_version, list_models
from corrector.registry.references import Reference
from tests.support.registering import NAME, Registering, registered, registries, write_work

__all__ = ["registered", "registries"]

PAGE = b"<!doctype html><html><head><title>Welcome</title></head><body>" + b"<p>It works!</p>" * 100


def files(folder: Path) -> dict[str, str]:
    """The files below a folder by their paths in it, with the SHA-256 of each."""
    return {
        str(file.relative_to(folder)): file_sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def use(root: Path, folder: Path, seed: int) -> None:
    """Do with a registry of two versions, of which none is reviewed, what people do."""
    place = ["--root", str(root)]
    for command in (
        ["list"],
        ["show", NAME],
        ["show", f"{NAME}/1"],
        ["promote", NAME, "1"],
        ["promote", NAME, "2"],
        ["rollback", NAME, "--why", "third legs"],
        ["history", NAME],
        ["verify"],
        ["export", f"{NAME}/2", str(folder / "exported")],
        ["diff", f"{NAME}/1", f"{NAME}/2"],
    ):
        assert main([*place, *command]) == 0, command
    assert fetch(NAME, "champion", folder / "fetched", tracking_uri=None, root=root).is_dir()
    added = register(write_work(folder / "record", seed), tracking_uri=None, root=root)
    assert added.version == "3"
    assert (root / "artifacts" / added.run_id / "artifacts" / "record.json").is_file()
    MlflowClient(local_uri(root), local_uri(root)).delete_model_version(NAME, "3")
    assert main([*place, "gc", "--delete", "--older-than", "0m"]) == 0
    assert not list((root / "artifacts" / added.run_id).rglob(WEIGHTS_FILE))
    assert main([*place, "verify"]) == 0


def test_a_moved_registry_is_used_at_its_new_place(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    registered.all(1, 2)
    moved = root.rename(tmp_path / "moved")
    use(moved, tmp_path / "used", seed=3)
    assert not root.exists()


def hard_linked(source: str, destination: str) -> str:
    """As `cp --link` copies, but for the database, which no one can share."""
    if Path(source).name == "mlflow.db":
        return shutil.copy2(source, destination)
    os.link(source, destination)
    return destination


@pytest.mark.parametrize("copy", [shutil.copy2, hard_linked])
def test_what_is_done_in_a_copy_leaves_the_original_as_it_is(
    registered: Registering, root: Path, tmp_path: Path, copy: Callable[[str, str], str]
) -> None:
    registered.all(1, 2)
    before = files(root)
    copied = Path(shutil.copytree(root, tmp_path / "copy", copy_function=copy))
    use(copied, tmp_path / "used", seed=3)
    assert files(root) == before


@pytest.mark.parametrize("was", ["moved", "copied"])
def test_the_database_of_a_moved_registry_is_refused_by_name(
    registered: Registering, root: Path, tmp_path: Path, was: str
) -> None:
    """Opened by its address, MLflow would read and write where its tables say: at the original's place."""
    registered.all(1, 2)
    record, before = tmp_path / "record-2", files(root)
    there = (
        root.rename(tmp_path / "there") if was == "moved" else Path(shutil.copytree(root, tmp_path / "there"))
    )
    place: dict[str, Any] = {"tracking_uri": local_uri(there), "root": tmp_path / "nowhere"}
    moved = "is outside of the registry in .*there, which was moved or copied; open it with --root .*there"
    with pytest.raises(RegistryError, match=moved):
        fetch(NAME, 1, tmp_path / "here", **place)
    with pytest.raises(RegistryError, match=moved):
        register(write_work(tmp_path / "record-3", 3), **place)
    assert (files(root) == before) if was == "copied" else not root.exists()
    assert register(record, tracking_uri=None, root=there).version == "2"


@contextmanager
def answering(status: int, body: bytes, kind: str) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every request so: its URL, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://ada:secret@127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


HTML, JSON = "text/html", "application/json"


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (200, PAGE, HTML, "no MLflow answers there; something else does, such as a web page: correct"),
        (404, PAGE, HTML, "no MLflow answers there; something else does, such as a web page: correct"),
        (200, b"[]", JSON, "no MLflow answers there; something else does"),
        (502, PAGE, HTML, "no MLflow answers there; a proxy does, with status 502"),
        (503, b"", HTML, "no MLflow answers there; a proxy does, with status 503"),
        (504, b"", HTML, "no MLflow answers there; a proxy does, with status 504"),
        (401, b"You are not authenticated.", HTML, r"asks for a user \(401\); set MLFLOW_TRACKING_USERNAME and"),
        (403, PAGE, HTML, r"refuses this user \(403\); set MLFLOW_TRACKING_USERNAME and"),
        (
            403,
            b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}',
            JSON,
            "PERMISSION_DENIED: Permission denied",
        ),
    ],
)  # fmt: skip
def test_where_something_else_than_mlflow_answers_it_is_said(
    root: Path, capsys: pytest.CaptureFixture[str], status: int, body: bytes, kind: str, told: str
) -> None:
    with answering(status, body, kind) as (url, asked):
        with pytest.raises(RegistryError, match=told) as refused:
            list_models(tracking_uri=url, root=root)
        assert len(asked) <= 2, "of a server that is not there, MLflow's client asks four times"
        assert main(["--tracking-uri", url, "list"]) == 2
    message = capsys.readouterr().err.strip()
    assert message == str(refused.value)
    assert message.startswith(url.replace("ada:secret@", "") + ": ")
    assert len(message) < 300
    assert "\n" not in message


def closed_port() -> str:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (closed_port, "the connection was refused: correct --tracking-uri or MLFLOW_TRACKING_URI, start the server"),
        (lambda: "http://no-such-host.invalid:5000", "its name is not known: correct"),
        (lambda: closed_port().replace("http:", "https:"), "the connection was refused: correct"),
    ],
)  # fmt: skip
def test_where_nothing_answers_it_is_said(root: Path, address: Callable[[], str], told: str) -> None:
    with pytest.raises(RegistryError, match=told) as refused:
        find_version(Reference.parse(NAME), tracking_uri=address(), root=root)
    assert "no MLflow answers there" in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_server_without_a_scheme_is_refused_with_it(root: Path) -> None:
    with pytest.raises(
        RegistryError, match="localhost:5000: no address of a server; write http://localhost:5000"
    ):
        list_models(tracking_uri="localhost:5000", root=root)


def test_a_server_that_does_not_speak_tls_is_told_from_one_that_is_not_there(root: Path) -> None:
    with (
        answering(200, b"{}", JSON) as (url, _),
        pytest.raises(RegistryError, match="it does not speak TLS; write http://"),
    ):
        list_models(tracking_uri=url.replace("http:", "https:"), root=root)


def test_a_server_that_hangs_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(RegistryError, match="no MLflow answers there; it did not answer in time"):
            list_models(tracking_uri=url, root=root)


def test_a_server_that_answers_is_asked_again_as_often_as_before(root: Path) -> None:
    """The shorter waits are those of the first contact alone."""
    with answering(200, b"{}", JSON) as (url, asked):
        assert list_models(tracking_uri=url, root=root).models == ()
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"
        first = len(asked)
        list_models(tracking_uri=url, root=root)
    assert (first, len(asked)) == (2, 3)


def test_commands_that_look_and_review_import_neither_torch_nor_mlflow(
    registered: Registering, root: Path
) -> None:
    """Their imports take seconds; the commands are to take a fraction of one."""
    registered.all(1, 2)
    program = """
import sys
from corrector.registry.__main__ import main

for command in (
    ["list"], ["show", NAME], ["show", NAME + "/1"], ["promote", NAME, "1"], ["promote", NAME, "2"],
    ["rollback", NAME, "--why", "blurs"], ["reject", NAME + "/2", "--why", "blurs"], ["history", NAME],
    ["traffic", NAME, "--mode", "shadow"], ["verify"], ["retire", NAME, "--why", "blurs"],
):
    assert main(["--root", sys.argv[1], *command]) == 0, command
assert main(["--root", sys.argv[1], "show", "unheard-of"]) == 2
print(sorted({"torch", "diffusers", "transformers", "mlflow", "sqlalchemy", "boto3", "scipy", "pandas"} & set(sys.modules)))
"""
    printed = subprocess.check_output(
        [sys.executable, "-c", program.replace("NAME", repr(NAME)), root],
        text=True,
        stderr=subprocess.DEVNULL,
    )
    assert printed.splitlines()[-1] == "[]"
