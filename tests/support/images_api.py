"""A stand-in for an images API on loopback: it draws scenes of `tests.world`, well or badly, and misbehaves as it is told.

`python -m tests.support.images_api PORT [WRONG]` serves until it is stopped; WRONG is the share of wrong images.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Thread
from typing import Any

from tests.world.scenes import Scene, canonical_prompt, paraphrases, render, scenes

KEY = "secret-of-the-tests"


@dataclass(frozen=True)
class Sale:
    """An answer that was charged for.

    Attributes:
        request_id: The client's own.
        digests: SHA-256 of each image that was drawn for it.
    """

    request_id: str
    prompt: str
    digests: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """What the server does with one request in place of answering it.

    Attributes:
        body: In place of the answer.
        items: In place of the images of the answer.
        cut: Number of bytes of the body after which the connection is closed.
        silent: It does not answer at all.
        sold: Whether it charges for the images.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    items: Sequence[Any] | None = None
    cut: int | None = None
    silent: bool = False
    sold: bool = False


def refusal(status: int, code: str, message: str = "no", **headers: str) -> Fault:
    """An answer that is an error, as OpenAI writes it."""
    body = json.dumps({"error": {"code": code, "type": "invalid_request_error", "message": message}})
    return Fault(status, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode())


@dataclass
class ImagesApiServer:
    """The server's behaviour, which tests may change at any time, and what it saw.

    Attributes:
        url: What clients take as the base URL.
        wrong: Share of the images that show broken limbs.
        as_url: Name the URLs of images in place of their content.
        side: Pixels of an image; None draws as large as asked for.
        latency: Seconds before the n-th request, from 0, is answered.
        faults: Each is for one request, in order; without any, requests are served.
        files: Path -> status, headers and body of a GET.
        requests: The body of each POST, with its time of arrival as `at` and the client's id as `id`.
        arrived: Called at each POST.
    """

    url: str = ""
    wrong: float = 0.0
    as_url: bool = False
    side: int | None = None
    latency: Callable[[int], float] = lambda _: 0.0
    faults: deque[Fault] = field(default_factory=deque)
    files: dict[str, tuple[int, Mapping[str, str], bytes]] = field(default_factory=dict)
    sales: list[Sale] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    arrived: Callable[[], object] = lambda: None
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def images_api(port: int = 0, wrong: float = 0.0) -> Iterator[ImagesApiServer]:
    """The server, for the duration of the context; at a free port by default."""
    api = ImagesApiServer(wrong=wrong)
    server = _Server(("127.0.0.1", port), _Handler)
    server.api = api
    api.url = f"http://127.0.0.1:{server.server_port}/v1"
    with running(server, api.closing):
        yield api


@contextmanager
def running(server: ThreadingHTTPServer, closing: threading.Event) -> Iterator[None]:
    """Serve in a thread; at the end `closing` is set, which ends handlers that wait for it, and the server is closed."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def png(prompt: str, seed: int, side: int = 64, broken: bool = False) -> bytes:
    """A picture of the scene that `prompt` names; of a tree where it names none."""
    content = io.BytesIO()
    render(_scene(prompt), seed, side, broken).save(content, "PNG")
    return content.getvalue()


def _scene(prompt: str) -> Scene:
    for scene in scenes():
        if prompt == canonical_prompt(scene) or prompt in paraphrases(scene):
            return scene
    return Scene("tree", "", "grass")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: ImagesApiServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        status, headers, body = self.server.api.files.get(self.path, (404, {}, b"not found"))
        self._answer(status, body, headers)

    def do_POST(self) -> None:
        api = self.server.api
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request_id = self.headers["X-Client-Request-Id"]
        with api.lock:
            number = len(api.requests)
            api.requests.append({**asked, "at": time.monotonic(), "id": request_id})
            fault = api.faults.popleft() if api.faults else Fault(sold=True)
        api.arrived()
        if self.path != "/v1/images/generations" or self.headers["Authorization"] != f"Bearer {KEY}":
            fault = refusal(401, "invalid_api_key", f"wrong key: {self.headers['Authorization']}")
        time.sleep(api.latency(number))
        items: list[Any] = []
        if fault.sold:
            side = api.side or int(asked["size"].partition("x")[0])
            drawn = [
                png(
                    asked["prompt"],
                    100 * number + i,
                    side,
                    broken=Random(f"{number}/{i}").random() < api.wrong,
                )
                for i in range(asked.get("n", 1))
            ]
            digests = tuple(hashlib.sha256(each).hexdigest() for each in drawn)
            with api.lock:
                api.sales.append(Sale(request_id, asked["prompt"], digests))
            items = [self._item(each, f"{number}-{i}", asked) for i, each in enumerate(drawn)]
        if fault.silent:
            api.closing.wait()
            return
        content = {"created": 0, "data": items if fault.items is None else list(fault.items)}
        body = json.dumps(content).encode() if fault.body is None else fault.body
        self._answer(fault.status, body, {"X-Request-Id": f"req-{number}", **fault.headers}, fault.cut)

    def _item(self, content: bytes, name: str, asked: Mapping[str, Any]) -> dict[str, str]:
        api = self.server.api
        revised = {"revised_prompt": f"{asked['prompt']}, revised"}
        if not api.as_url:
            return {"b64_json": base64.b64encode(content).decode()} | revised
        api.files.setdefault(f"/images/{name}", (200, {"Content-Type": "image/png"}, content))
        return {"url": f"{api.url.removesuffix('/v1')}/images/{name}"} | revised

    def _answer(
        self, status: int, content: bytes, headers: Mapping[str, str], cut: int | None = None
    ) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[:cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing: what matters is in `ImagesApiServer`."""


def serve(api: AbstractContextManager[Any]) -> None:
    """Serve until Ctrl-C; prints the address and the key."""
    with api as server, suppress(KeyboardInterrupt):
        print(f"{server.url} takes the key {KEY}", flush=True)
        server.closing.wait()


def main(arguments: Sequence[str]) -> None:
    """Run the command; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("wrong", type=float, nargs="?", default=0.0)
    given = parser.parse_args(arguments)
    serve(images_api(given.port, given.wrong))


if __name__ == "__main__":
    main(sys.argv[1:])
