"""A stand-in for a vision-language model behind `POST /chat/completions`, on loopback: the oracle looks at the images.

It judges single pictures of the world's prompts and compares pairs of them, errs with a given probability, and misbehaves as
it is told.
`python -m tests.support.judge_api PORT` serves until it is stopped.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

import torch
from PIL import Image

from corrector.exemplars import to_tensor
from tests.oracle import Oracle
from tests.oracle.judge import SCENES
from tests.support.images_api import KEY, Fault, refusal, running, serve

_SIDE = 64
_OPPOSITE = {"first": "second", "second": "first", "both bad": "both bad"}
_DATA_URL = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")


def _completion(content: str | None, **message: Any) -> bytes:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": content, **message},
    }
    return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


def says(content: str | None, **message: Any) -> Fault:
    """A paid answer that is a chat completion with this text in place of a verdict."""
    return Fault(body=_completion(content, **message), sold=True)


LAPSES: Mapping[str, Fault] = {
    "prose": says("Both pictures have their charm."),
    "wrong schema": says('{"winner": 1, "reason": "It is brighter."}'),
    "refusal": says(None, refusal="I cannot compare people."),
    "another language": says("Das erste Bild zeigt den glaubwürdigeren Körper."),
    "billed failure": Fault(500, {"Retry-After": "0"}, b"boom", sold=True),
}
"""What models do in place of answering."""


@dataclass
class JudgeApiServer:
    """The server's behaviour, which tests may change at any time, and what it saw.

    Attributes:
        url: What clients take as the base URL.
        noise: Probability that a verdict is the opposite; it depends on the images, and not on their order.
        order_bias: Probability that of a pair the first picture is preferred, whatever it shows; it depends on the order.
        lapse_rate: Probability that a question meets one of `LAPSES` in place of its first answer; it depends on the question.
        faults: Each is for one request, in order; without any, requests are served.
        always: Misbehaviour of every request for which `faults` has none.
        requests: The body of each POST.
        billed: Number of requests that were charged for.
        arrived: Called at each POST.
    """

    url: str = ""
    noise: float = 0.0
    order_bias: float = 0.0
    lapse_rate: float = 0.0
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    billed: int = 0
    arrived: Callable[[], object] = lambda: None
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)
    oracle: Oracle = field(default_factory=Oracle.load)

    def verdict(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What the oracle says of the one or two pictures and the world's prompt in a request."""
        parts = asked["messages"][-1]["content"]
        text = next(part["text"] for part in parts if part["type"] == "text")
        files = [_file(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
        single = [self._single(content, text) for content in files]
        if len(files) == 1:
            (found,) = single
            if Random(files[0]).random() < self.noise:
                wrong = not (found["anatomy"] and found["matches_prompt"])
                found |= {"anatomy": wrong, "matches_prompt": wrong}
            return found
        if Random(b"order" + b"".join(files)).random() < self.order_bias:
            return dict.fromkeys(("body", "prompt", "overall"), "first") | {"reason": "the first, as always"}
        # Of two that are equally right, the same one in both orders.
        tie = "first" if files[0] < files[1] else "second"
        body = _better([each["anatomy"] for each in single], tie)
        prompt = _better([each["matches_prompt"] for each in single], tie)
        overall = _better([each["anatomy"] and each["matches_prompt"] for each in single], tie)
        found = {"body": body, "prompt": prompt, "overall": overall}
        if Random(b"".join(sorted(files))).random() < self.noise:
            found = {question: _OPPOSITE[choice] for question, choice in found.items()}
        return found | {"reason": " against ".join(each["reason"] for each in single)}

    def lapse(self, asked: Mapping[str, Any]) -> Fault | None:
        """What happens to a question in place of an answer, the first time."""
        random = Random(json.dumps(asked["messages"]))
        if self.requests.count(dict(asked)) > 1 or random.random() >= self.lapse_rate:
            return None
        return random.choice(list(LAPSES.values()))

    def _single(self, content: bytes, text: str) -> dict[str, Any]:
        picture = Image.open(io.BytesIO(content)).convert("RGB").resize((_SIDE, _SIDE))
        (seen,) = self.oracle.judge(torch.stack([to_tensor(picture)]))
        scene = SCENES.get(max((known for known in SCENES if known in text.lower()), key=len, default=""))
        shown = (seen.subject, seen.pose, seen.place)
        # Of a prompt in other words than the world's, only the anatomy is judged.
        matches = scene is None or shown == (scene.subject, scene.pose, scene.place)
        reason = f"a {seen.subject} {seen.pose} on the {seen.place}, {'sound' if seen.intact else 'broken'}"
        return {"anatomy": seen.intact, "matches_prompt": matches, "reason": " ".join(reason.split())}


@contextmanager
def judge_api(port: int = 0) -> Iterator[JudgeApiServer]:
    """The server, for the duration of the context; at a free port by default."""
    api = JudgeApiServer()
    server = _Server(("127.0.0.1", port), _Handler)
    server.api = api
    api.url = f"http://127.0.0.1:{server.server_port}/v1"
    with running(server, api.closing):
        yield api


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    api: JudgeApiServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        api = self.server.api
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with api.lock:
            api.requests.append(asked)
            fault = api.faults.popleft() if api.faults else api.always or api.lapse(asked) or Fault(sold=True)
        api.arrived()
        if self.path != "/v1/chat/completions" or self.headers["Authorization"] != f"Bearer {KEY}":
            fault = refusal(401, "invalid_api_key", f"wrong key: {self.headers['Authorization']}")
        if fault.sold:
            with api.lock:
                api.billed += 1
        if fault.silent:
            api.closing.wait()
            return
        body = fault.body
        if body is None:
            with api.lock:
                body = _completion(json.dumps(api.verdict(asked)))
        with suppress(ConnectionError):
            self.send_response(fault.status)
            for name, value in {"Content-Length": str(len(body)), **fault.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: fault.cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing: what matters is in `JudgeApiServer`."""


def _file(url: str) -> bytes:
    found = _DATA_URL.fullmatch(url)
    assert found is not None, "the picture is no PNG in a data: URL"
    return base64.b64decode(found[1], validate=True)


def _better(right: list[bool], tie: str) -> str:
    """The one of two pictures that is right; `tie` where both are."""
    return {(True, False): "first", (False, True): "second", (False, False): "both bad"}.get(
        (right[0], right[1]), tie
    )


def main(arguments: Sequence[str]) -> None:
    """Run the command; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    serve(judge_api(parser.parse_args(arguments).port))


if __name__ == "__main__":
    main(sys.argv[1:])
