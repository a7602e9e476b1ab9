"""The whole endpoint under load and with its parts failing: HTTP, Ray Serve, a real MLflow server on a real S3 server.

    python -m tests.benchmarks.endpoint [--clients 16] [--burst 1000] [--out FILE.json]

Everything runs on this machine, on its loopback interface, and is stopped at the end. In order: images a second over HTTP and
their latency; the champion changed under load; so many requests at once; bad requests, slow clients and clients that go away,
beside ordinary traffic; then, one after the other, a corrupt adapter, S3 gone, the registry gone and the engine killed.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from cluster import head as heads
from cluster.head import HeadOptions
from tests.benchmarks import command
from tests.benchmarks.servers import Machine, servers
from tests.benchmarks.serving import closed_loop
from tests.support.endpoint import Endpoint, running
from tests.support.served_registry import NAME, RegistryOf
from tests.support.waiting import wait_until

PROMPT = "a person lying on the grass"
_STEPS = 4
_MIB = 1024**2


@dataclass
class Traffic:
    """What became of requests."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """Answered neither with images nor with "come again"."""
        return sum(count for status, count in self.statuses.items() if status not in ("200", "429"))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    options = _parser().parse_args(arguments)
    report = command.Report("endpoint", options, command.subject(options))
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        folder = Path(name)
        machine = held.enter_context(servers(folder))
        registry = RegistryOf(folder / "records", folder / "unused", machine.uri)
        registry.crown(registry.add(1))
        head = heads.start(HeadOptions(num_cpus=2), state=folder / "head")
        held.callback(heads.stop, head, state=folder / "head")
        endpoint = held.enter_context(running(folder, head, registry))
        for part in (throughput, champion_changed, burst, bad_clients):
            report.add(part(endpoint, options))
        for fault in (corrupt_adapter, s3_gone, registry_gone, engine_killed):
            report.add({"fault": fault.__name__.replace("_", " "), **fault(endpoint, machine)})
    report.show("over HTTP", THROUGHPUT)
    report.show("the champion changed under load", CHANGE)
    report.show("at once", BURST)
    report.show("beside bad clients", BAD)
    report.show("faults", FAULTS)


def throughput(endpoint: Endpoint, options: argparse.Namespace) -> command.Row:
    """A closed loop of clients, half of them for the corrected prompt."""
    traffic = Traffic()
    began = time.monotonic()

    def draw(number: int) -> None:
        prompt = PROMPT if number % 2 else "a house on the beach"
        _ask(endpoint, traffic, prompt=prompt, seed=number, num_inference_steps=None)

    numbers = iter(range(options.images))
    closed_loop(draw, int, numbers, clients=options.clients, images=options.images)  # type: ignore[arg-type]  # a number is asked for
    seconds = time.monotonic() - began
    taken = sorted(traffic.seconds)
    return {
        "images": options.images,
        "clients": options.clients,
        "images_per_second": options.images / seconds,
        "p50_seconds": statistics.median(taken),
        "p99_seconds": taken[int(0.99 * (len(taken) - 1))],
        "http_failed": traffic.failed,
    }


def champion_changed(endpoint: Endpoint, options: argparse.Namespace) -> command.Row:
    """There and back, while clients ask for the corrected prompt."""
    two = endpoint.registry.add(2)
    seconds = []
    with asking(endpoint, options.clients) as traffic:
        wait_until(lambda: traffic.statuses["200"] > options.clients, 120)
        for version in (two, "1"):
            began = time.monotonic()
            endpoint.registry.crown(version)
            endpoint.serves(version, 30)
            seconds.append(time.monotonic() - began)
            before = traffic.versions[version]
            wait_until(lambda v=version, b=before: traffic.versions[v] > b, 60)  # type: ignore[misc]  # defaults bind them
    return {
        "requests_under_change": sum(traffic.statuses.values()),
        "failed": traffic.failed,
        "longest_seconds_to_follow": max(seconds),
        "by_version": dict(traffic.versions),
    }


def burst(endpoint: Endpoint, options: argparse.Namespace) -> command.Row:
    """All at once, twice; memory of both processes before and afterwards."""
    resident: list[dict[str, float]] = []
    statuses: Counter[str] = Counter()
    began = time.monotonic()
    for _ in range(3):
        resident.append(
            {name: endpoint.replica(name).memory_info().rss / _MIB for name in ("ingress", "engine")}
        )
        if len(resident) == 3:
            break
        traffic = Traffic()
        with ThreadPoolExecutor(options.burst) as clients:
            asked = [clients.submit(_ask, endpoint, traffic, seed=seed) for seed in range(options.burst)]
        for each in asked:
            each.result()
        statuses += traffic.statuses
        wait_until(lambda: endpoint.ready()["engine"]["drawing"] == 0, 60)
    return {
        "at_once": options.burst,
        "rounds": 2,
        "statuses": dict(statuses),
        "seconds": (time.monotonic() - began) / 2,
        "ingress_mib": [each["ingress"] for each in resident],
        "engine_mib": [each["engine"] for each in resident],
        "growth_mib_second_round": sum(resident[2].values()) - sum(resident[1].values()),
    }


def bad_clients(endpoint: Endpoint, options: argparse.Namespace) -> command.Row:
    """Latency of ordinary traffic alone, and beside clients that send nonsense, trickle, or go away."""
    clients = max(1, options.clients // 4)

    def ordinary() -> Traffic:
        with asking(endpoint, clients) as traffic:
            time.sleep(options.seconds)
        return traffic

    alone = ordinary()
    stop = threading.Event()
    answers: Counter[str] = Counter()
    threads = [
        threading.Thread(target=_until, args=(stop, work))
        for work in (
            lambda: answers.update([_nonsense(endpoint)]),
            lambda: answers.update([_nonsense(endpoint)]),
            lambda: _vanish(endpoint),
            lambda: _trickle(endpoint, stop),
            lambda: _trickle(endpoint, stop),
        )
    ]
    for thread in threads:
        thread.start()
    try:
        beside = ordinary()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return {
        "ordinary_failed": alone.failed + beside.failed,
        "p50_alone_seconds": statistics.median(alone.seconds),
        "p50_beside_seconds": statistics.median(beside.seconds),
        "answers_to_nonsense": dict(answers),
    }


def corrupt_adapter(endpoint: Endpoint, machine: Machine) -> dict[str, Any]:
    """A champion whose bytes in S3 are not the registered ones."""
    number = endpoint.registry.add(3)
    run = endpoint.registry.client.get_model_version(NAME, number).run_id
    found = [
        each
        for each in machine.s3.list_objects_v2(Bucket=machine.bucket)["Contents"]
        if run in each["Key"] and each["Key"].endswith("pytorch_lora_weights.safetensors")
    ]
    key = found[0]["Key"]
    whole = machine.s3.get_object(Bucket=machine.bucket, Key=key)["Body"].read()
    machine.s3.put_object(Bucket=machine.bucket, Key=key, Body=whole[:-1] + bytes([whole[-1] ^ 1]))
    with asking(endpoint, 2) as traffic:
        endpoint.registry.crown(number)
        noticed = _seconds_until(lambda: endpoint.ready().get("refused") == 1)
        served = endpoint.champion()
        endpoint.registry.crown("1")
        recovered = _seconds_until(lambda: endpoint.ready().get("refused") == 0)
    return _fault(traffic, noticed, served, recovered)


def s3_gone(endpoint: Endpoint, machine: Machine) -> dict[str, Any]:
    """A champion that was never fetched, while S3 is down."""
    number = endpoint.registry.add(4)
    with asking(endpoint, 2) as traffic:
        machine.stop_store()
        endpoint.registry.crown(number)
        noticed = _seconds_until(lambda: endpoint.ready().get("refused") == 1)
        served = endpoint.champion()
        machine.start_store()
        recovered = _seconds_until(lambda: endpoint.champion() == number)
    endpoint.registry.crown("1")
    endpoint.serves("1", 30)
    return _fault(traffic, noticed, served, recovered)


def registry_gone(endpoint: Endpoint, machine: Machine) -> dict[str, Any]:
    """MLflow down."""
    with asking(endpoint, 2) as traffic:
        machine.stop_mlflow()
        noticed = _seconds_until(lambda: endpoint.ready().get("registry", {}).get("ok") is False)
        served = endpoint.champion()
        time.sleep(3)
        machine.start_mlflow()
        recovered = _seconds_until(lambda: endpoint.ready().get("registry", {}).get("ok") is True)
    return _fault(traffic, noticed, served, recovered)


def engine_killed(endpoint: Endpoint, machine: Machine) -> dict[str, Any]:
    """The only engine's process, with images under way: they are drawn by the next one."""
    del machine
    with asking(endpoint, 2) as traffic:
        wait_until(lambda: traffic.statuses["200"] > 2, 60)
        endpoint.replica("engine").kill()
        noticed = _seconds_until(lambda: endpoint.ready().get("ready") is False)
        served = endpoint.champion()
        recovered = _seconds_until(lambda: endpoint.ready().get("ready") is True)
        before = traffic.statuses["200"]
        wait_until(lambda: traffic.statuses["200"] > before, 120)
    return _fault(traffic, noticed, served, recovered)


def _fault(traffic: Traffic, noticed: float, served: str | None, recovered: float) -> dict[str, Any]:
    return {
        "seconds_to_notice": noticed,
        "version_served_meanwhile": served,
        "seconds_to_recover": recovered,
        "requests": sum(traffic.statuses.values()),
        "failed": traffic.failed,
        "longest_request_seconds": max(traffic.seconds),
    }


@contextmanager
def asking(endpoint: Endpoint, clients: int) -> Iterator[Traffic]:
    """So many clients ask for the corrected prompt, each again when it has its image, until the block ends."""
    traffic, stop = Traffic(), threading.Event()
    threads = [
        threading.Thread(target=_until, args=(stop, lambda: _ask(endpoint, traffic))) for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield traffic
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ask(endpoint: Endpoint, traffic: Traffic, **fields: Any) -> None:
    body = {"prompt": PROMPT, "num_inference_steps": _STEPS, **fields}
    began = time.monotonic()
    try:
        with httpx2.Client(timeout=180) as client:
            answer = client.post(f"{endpoint.address}/v1/images/generations", json=body)
        status = str(answer.status_code)
        version = answer.headers.get("x-adapter-version", "base")
    except httpx2.HTTPError as error:
        status, version = type(error).__name__, "none"
    traffic.seconds.append(time.monotonic() - began)
    traffic.statuses[status] += 1
    traffic.versions[version] += 1


def _until(stop: threading.Event, work: Callable[[], object]) -> None:
    while not stop.is_set():
        work()


def _nonsense(endpoint: Endpoint) -> str:
    bodies = (
        b"{",
        b'{"prompt": 7}',
        b'{"prompt": "x", "n": 99}',
        b'{"prompt": "x", "size": "1x1"}',
        b"\xff" * 100_000,
    )
    body = bodies[time.monotonic_ns() % len(bodies)]
    with httpx2.Client(timeout=60) as client:
        headers = {"content-type": "application/json"}
        answer = client.post(f"{endpoint.address}/v1/images/generations", content=body, headers=headers)
    return f"{answer.status_code} {answer.json()['error']['code']}"


def _vanish(endpoint: Endpoint) -> None:
    """Asks for eight images of a hundred steps, and is gone after half a second."""
    body = json.dumps({"prompt": "x", "num_inference_steps": 100, "n": 8}).encode()
    with _connection(endpoint, len(body)) as connection:
        connection.sendall(body)
        time.sleep(0.5)


def _trickle(endpoint: Endpoint, stop: threading.Event) -> None:
    """Sends a body letter by letter."""
    with _connection(endpoint, 10_000) as connection:
        try:
            while not stop.is_set():
                connection.sendall(b" ")
                time.sleep(0.2)
        except OSError:
            return  # it was given up


def _connection(endpoint: Endpoint, length: int) -> socket.socket:
    host, port = endpoint.address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(
        f"POST /v1/images/generations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
    )
    return connection


def _seconds_until(condition: Callable[[], bool], limit: float = 120) -> float:
    began = time.monotonic()
    wait_until(condition, limit)
    return time.monotonic() - began


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("The endpoint under load, and with its parts failing.")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--burst", type=int, default=1000, help="requests at once")
    parser.add_argument("--seconds", type=float, default=20, help="of traffic beside bad clients")
    return parser


THROUGHPUT = {
    "images": "images",
    "clients": "clients",
    "images_per_second": "images/s",
    "p50_seconds": "p50, s",
    "p99_seconds": "p99, s",
    "http_failed": "failed",
}
CHANGE = {
    "requests_under_change": "requests",
    "failed": "failed",
    "longest_seconds_to_follow": "followed after, s",
    "by_version": "by version",
}
BURST = {
    "at_once": "requests",
    "statuses": "answers",
    "seconds": "s",
    "ingress_mib": "ingress, MiB",
    "engine_mib": "engine, MiB",
}
BAD = {
    "ordinary_failed": "failed",
    "p50_alone_seconds": "p50 alone, s",
    "p50_beside_seconds": "p50 beside them, s",
    "answers_to_nonsense": "answers to nonsense",
}
FAULTS = {
    "fault": "",
    "seconds_to_notice": "noticed after, s",
    "version_served_meanwhile": "served meanwhile",
    "seconds_to_recover": "recovered after, s",
    "requests": "requests",
    "failed": "failed",
    "longest_request_seconds": "longest, s",
}


if __name__ == "__main__":
    main()
