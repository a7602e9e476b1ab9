"""A stand-in for the Hugging Face hub on loopback: what it serves is a folder, and it can refuse as the hub does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository, ``someone/sd3``, whose branch ``main`` and commit :data:`COMMIT` are ``folder``."""

    folder: Path
    endpoint: str = ""
    token: str | None = None
    """The token that may read files; None: everybody may."""
    gated: bool = False
    """Without access, whether the hub says that the repository is gated; otherwise that it forbids."""
    expired: str | None = None
    """A token that the hub accepts for nothing, not even for what everybody may read."""
    served: list[str] = field(default_factory=list)
    """Files that were sent, in order."""

    def refusal(self, authorization: str | None) -> tuple[int, str] | None:
        """Status and error code for who may not read files."""
        if self.token is None or authorization == f"Bearer {self.token}":
            return None
        if self.gated:
            return (403 if authorization else 401), "GatedRepo"
        return (403, "Forbidden") if authorization else (401, "RepoNotFound")


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """The hub, to which huggingface_hub goes meanwhile, with an empty cache and no token."""
    hub = Hub(folder)
    server = _Server(("127.0.0.1", 0), _Handler, hub)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.HF_TOKEN_PATH", str(cache / "no-token"))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], hub: Hub) -> None:
        super().__init__(address, handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if self.headers["Authorization"] == f"Bearer {self.server.hub.expired}":
            self._answer(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path.startswith("/api/models/someone/sd3/revision/"):
            self._revision(path.rpartition("/")[2])
        elif path == f"/api/models/someone/sd3/tree/{COMMIT}":
            self._answer(
                200,
                json.dumps(
                    [_entry(self.server.hub.folder, each) for each in _files(self.server.hub.folder)]
                ).encode(),
            )
        elif path.startswith(f"/someone/sd3/resolve/{COMMIT}/"):
            self._file(path.removeprefix(f"/someone/sd3/resolve/{COMMIT}/"))
        else:
            self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def _revision(self, revision: str) -> None:
        if revision in ("main", COMMIT):
            self._answer(200, json.dumps({"id": "someone/sd3", "sha": COMMIT, "siblings": []}).encode())
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})

    def _file(self, name: str) -> None:
        if refusal := self.server.hub.refusal(self.headers["Authorization"]):
            status, code = refusal
            self._answer(status, b"{}", {"X-Error-Code": code})
            return
        content = (self.server.hub.folder / name).read_bytes()
        if self.command == "GET":
            self.server.hub.served.append(name)
        etag = hashlib.sha256(content).hexdigest()
        self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: the requests that matter are in ``Hub.served``."""


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _entry(folder: Path, path: Path) -> dict[str, object]:
    content = path.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return {"type": "file", "oid": oid, "size": len(content), "path": path.relative_to(folder).as_posix()}
