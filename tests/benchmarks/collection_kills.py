"""A collection of 40 images, killed again and again: `python -m tests.benchmarks.collection_kills [--kills 100]`.

The collection runs as a process against an images API on loopback. It is killed (SIGKILL) at moments drawn from the seed: so
many milliseconds after its start, or after the API received the first request of its life. Then it goes on undisturbed.
Printed: what was stored, what the API sold, and what was lost; if the collection ends before the last kill, a new folder
follows. Exit status 1 where an image is missing or was sold twice, or where a loss was not reported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.support.images_api import KEY, ImagesApiServer, images_api
from tests.support.paths import PROJECT

PROMPT = "a person lying on the grass"
IMAGES = 40
PARALLEL = 2
_REPORTED = "in flight when the process was killed, may have been billed: requests "


@dataclass(frozen=True)
class Found:
    """A finished collection: sets of SHA-256 digests.

    Attributes:
        stored: Images in the folder.
        sold: Images that the API charged for, and how often at most it sold one request.
        lost: Images of requests that were reported as in flight at a kill.
        kills: Number of kills.
    """

    stored: set[str]
    sold: set[str]
    sales_of_one_request: int
    lost: set[str]
    kills: int

    @property
    def is_right(self) -> bool:
        """All images are there, and what was bought beyond them was reported as lost."""
        return (
            len(self.stored) == IMAGES
            and self.sales_of_one_request == 1
            and self.sold == self.stored | self.lost
            and not self.stored & self.lost
            and len(self.lost) <= PARALLEL * self.kills
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="number of kills (100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    options = parser.parse_args(arguments)
    random, kills, right = Random(options.seed), 0, True
    while kills < options.kills:
        with tempfile.TemporaryDirectory() as folder:
            found = collected(Path(folder) / "exemplars", random, options.kills - kills)
        kills += found.kills
        right = right and found.is_right
        print(
            f"{found.kills} kills: {len(found.stored)} of {IMAGES} images stored, {len(found.sold)} sold, each request at "
            f"most {found.sales_of_one_request} time; {len(found.lost)} lost in flight and reported: "
            f"{'right' if found.is_right else 'WRONG'}",
            flush=True,
        )
    return 0 if right else 1


def collected(folder: Path, random: Random, kills: int) -> Found:
    """One collection, killed up to `kills` times, then left to its end."""
    latencies = Random(random.random())
    with images_api() as api:
        api.latency = lambda _: latencies.uniform(0.0, 0.1)
        done = 0
        while done < kills:
            killed = _killed(folder, api, random)
            done += killed
            if not killed:
                break
        with _started(folder, api) as process:
            output, _ = process.communicate()
        assert process.returncode == 0, output
        return _found(folder, api, output, done)


def _killed(folder: Path, api: ImagesApiServer, random: Random) -> bool:
    """Start the collection and kill it at a drawn moment; False where it ended before."""
    arrived = threading.Event()
    api.arrived = arrived.set
    after_arrival = random.random() < 0.8
    delay = random.uniform(0.0, 0.12 if after_arrival else 0.6)
    with _started(folder, api) as process:
        if after_arrival:
            while not arrived.wait(0.01) and process.poll() is None:
                pass
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        ended = process.poll() is not None
        process.kill()
    return not ended


def _started(folder: Path, api: ImagesApiServer) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "corrector.exemplars", "generate", str(folder), "--yes"),
        *("--prompt", PROMPT, "--variant", "a photo of a person lying on the grass"),
        *("--base-url", api.url, "--model", "world", "--size", "64x64"),
        *("--count", str(IMAGES), "--price", "0.04", "--budget", "40", "--max-images", "1000"),
        *("--parallel", str(PARALLEL)),
    ]
    return subprocess.Popen(
        command,
        cwd=PROJECT,
        env=os.environ | {"OPENAI_API_KEY": KEY},
        stdout=subprocess.PIPE,
        text=True,
    )


def _found(folder: Path, api: ImagesApiServer, output: str, kills: int) -> Found:
    journal = [json.loads(line) for line in (folder / ".generation/journal.jsonl").read_text().splitlines()]
    ids = {event["request"]: event["id"] for event in journal if event["event"] == "asked"}
    line = next((each for each in output.splitlines() if each.startswith(_REPORTED)), "")
    numbers = [int(number) for number in line.removeprefix(_REPORTED).split(", ") if number]
    reported = {ids[number] for number in numbers}
    sold_ids = [sale.request_id for sale in api.sales]
    return Found(
        stored={hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.png")},
        sold={digest for sale in api.sales for digest in sale.digests},
        sales_of_one_request=max(sold_ids.count(each) for each in sold_ids),
        lost={digest for sale in api.sales if sale.request_id in reported for digest in sale.digests},
        kills=kills,
    )


if __name__ == "__main__":
    sys.exit(main())
