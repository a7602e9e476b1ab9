"""The registry under load: `python -m tests.benchmarks.registry [--tracking-uri URI]`.

Adapters of rank 16 for the embedded base are registered by several processes at once; then names are added until there are
as many versions as asked for, and looking is timed. Without a tracking URI the local form is measured, in a temporary
folder; with one, use a registry of its own, as what is registered stays there.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from corrector.adapters import SD3_TARGETS, Adapter
from corrector.base.sources import EMBEDDED_FOLDER
from corrector.record.correction_record import WEIGHTS_FILE
from corrector.registry import RegistryError, prepare, register
from corrector.registry.listing import find_version, list_models
from corrector.registry.promotion import promote
from corrector.registry.references import CHAMPION, Reference
from corrector.registry.store import open_store
from corrector.registry.verify import WORKERS, verify
from tests.benchmarks import command
from tests.benchmarks.machine import describe
from tests.support.records import write_record
from tests.world.scenes import Scene

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["corrector.registry.verify", "mlflow.store.tracking.sqlalchemy_store", "tests.support.records"]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a version was lost, doubled or damaged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tracking-uri", help="an MLflow server with nothing in it (default: the local form)"
    )
    parser.add_argument(
        "--bucket",
        help="where that server keeps artifacts, for reading without MLflow; the AWS variables lead there",
    )
    parser.add_argument("--adapters", type=int, default=500)
    parser.add_argument(
        "--rank", type=int, default=16, help="of the adapters; 256: as large as SD3-medium's of 16"
    )
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--versions", type=int, default=5000, help="in all, when looking is timed")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file for the figures")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        place = {"tracking_uri": options.tracking_uri, "root": Path(temporary) / "registry"}
        figures = measure(Path(temporary), place, options)
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    if options.out:
        content = {
            "benchmark": "registry",
            "machine": describe(torch.device("cpu")),
            "arguments": {
                "place": "local" if options.tracking_uri is None else "server",
                **{
                    name: getattr(options, name)
                    for name in ("adapters", "rank", "processes", "versions", "rounds")
                },
            },
            "results": figures,
        }
        command.write_results(options.out, content)
    return 0 if figures["lost, doubled or damaged"] == 0 else 1


def measure(folder: Path, place: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """All figures, in the order in which they are taken."""
    folders = write_records(folder / "records", options.adapters, options.rank)
    prepare(**place)
    seconds = register_at_once(folders, place, options.processes)
    began = time.perf_counter()
    checked = verify(**place)
    rate = sum(result.bytes for result in checked) / 1e6 / (time.perf_counter() - began)
    bare = bare_rate(place["root"], options.bucket)
    works = [result.version.work_id for result in checked]
    wrong = sum(result.problem is not None for result in checked)
    wrong += len(works) - len(set(works)) + len(folders) - len(set(works))
    promote(folders[0].name, who="benchmark", **place)
    add_versions(place, options.versions - len(works))
    reference = Reference(folders[0].name, alias=CHAMPION)
    return {
        "adapters": len(folders),
        "processes": options.processes,
        "seconds to register all": seconds,
        "adapters a second": len(folders) / seconds,
        "lost, doubled or damaged": wrong,
        "MB of an adapter": checked[0].bytes / 1e6,
        "verify, MB a second": rate,
        "reading and hashing without MLflow, MB a second": bare,
        "verify over that": None if bare is None else rate / bare,
        "versions when looking": options.versions,
        **timed("list, a page of 50", lambda: list_models(**place), options.rounds),
        **timed(
            "list, by a part of the name",
            lambda: list_models(**place, containing="adapter-7"),
            options.rounds,
        ),
        **timed("champion", lambda: find_version(reference, **place), options.rounds),
    }


def bare_rate(root: Path, bucket: str | None) -> float | None:
    """MB a second at which the registered weights are read and hashed, by as many threads as `verify` has, without MLflow.

    They are those of the local form below `root`, or, where there is none, in `bucket`; None: neither is known.
    """
    reads: list[Callable[[], bytes]]
    if root.is_dir():
        reads = [path.read_bytes for path in (root / "artifacts").rglob(WEIGHTS_FILE)]
    elif bucket is not None:
        import boto3

        s3 = boto3.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [found["Key"] for page in pages for found in page["Contents"]]
        weights = [key for key in keys if key.endswith(WEIGHTS_FILE)]
        reads = [partial(_download, s3, bucket, key) for key in weights]
    else:
        return None

    def hashed(read: Callable[[], bytes]) -> int:
        content = read()
        hashlib.sha256(content).digest()
        return len(content)

    began = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        size = sum(pool.map(hashed, reads))
    return size / 1e6 / (time.perf_counter() - began)


def _download(s3: Any, bucket: str, key: str) -> bytes:
    content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def write_records(folder: Path, count: int, rank: int) -> list[Path]:
    """Records of adapters for every target of the embedded base, with few images."""
    config = json.loads((EMBEDDED_FOLDER / "transformer" / "config.json").read_text(encoding="utf-8"))
    width = config["num_attention_heads"] * config["attention_head_dim"]
    paths = [
        f"transformer_blocks.{block}.{target}"
        for block in range(config["num_layers"])
        for target in SD3_TARGETS
        if block < config["num_layers"] - 1 or target != "attn.to_add_out"
    ]
    folders = [folder / f"adapter-{number}" for number in range(count)]
    for number, path in enumerate(folders):
        draws = torch.Generator().manual_seed(number)
        weights = {
            name: (torch.randn(rank, width, generator=draws), torch.randn(width, rank, generator=draws))
            for name in paths
        }
        write_record(
            path, Scene("person", "lying", "grass"), pairs=2, guard_images=1, steps=100, name=path.name,
            work_id=path.name, adapter=Adapter(rank, float(rank), weights),
        )  # fmt: skip
    return folders


def register_at_once(folders: Sequence[Path], place: dict[str, Any], processes: int) -> float:
    """Seconds until so many processes have registered all records, each its share; starting them does not count."""
    ready, signal = _PROCESSES.Barrier(processes + 1), _PROCESSES.Event()
    children = [
        _PROCESSES.Process(target=_register_all, args=(folders[k::processes], place, ready, signal))
        for k in range(processes)
    ]
    for child in children:
        child.start()
    ready.wait()
    began = time.perf_counter()
    signal.set()
    for child in children:
        child.join()
    seconds = time.perf_counter() - began
    if any(child.exitcode for child in children):
        raise RegistryError("a process failed to register its share; what it said stands above")
    return seconds


def add_versions(place: dict[str, Any], count: int) -> None:
    """Versions without artifacts, tagged as real ones are, ten to a name."""
    with open_store(**place, writing=True) as store:
        model = next(version for version in store.models.versions())
        tags = dict(model.tags)
        for number in range(count):
            name = f"filler-{number // 10}"
            if number % 10 == 0:
                store.client.create_registered_model(name)
            store.client.create_model_version(
                name, model.source, model.run_id, tags=tags | {"work_id": f"filler-{number}"}
            )


def timed(what: str, look: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median and worst milliseconds of `look`, after one that does not count, and the worst without garbage collection.

    Python's collector now and then walks over all that MLflow and torch have made, for whoever asks just then.
    """
    look()
    milliseconds, collecting = [], []
    for _ in range(rounds):
        with _collections() as pauses:
            began = time.perf_counter()
            look()
            milliseconds.append(1000 * (time.perf_counter() - began))
        collecting.append(1000 * sum(pauses))
    rest = [whole - pause for whole, pause in zip(milliseconds, collecting, strict=True)]
    return {
        f"{what}, ms": statistics.median(milliseconds),
        f"{what}, worst ms": max(milliseconds),
        f"{what}, worst ms without garbage collection": max(rest),
    }


@contextmanager
def _collections() -> Iterator[list[float]]:
    """The seconds of each garbage collection of this process inside the context."""
    pauses: list[float] = []
    began = 0.0

    def watch(phase: str, _: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            pauses.append(time.perf_counter() - began)

    gc.callbacks.append(watch)
    try:
        yield pauses
    finally:
        gc.callbacks.remove(watch)


def _register_all(folders: Sequence[Path], place: dict[str, Any], ready: Any, signal: Any) -> None:
    ready.wait()
    signal.wait()
    for folder in folders:
        register(folder, **place)


if __name__ == "__main__":
    sys.exit(main())
