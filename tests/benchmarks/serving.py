"""The serving engine beside the usual design: one pipeline behind a lock, `set_adapters` for every request.

    python -m tests.benchmarks.serving [--clients 16] [--adapters 16] [--registered 500] [--out FILE.json]

A closed loop: every client asks for its next image when it has the last. The designs take turns, round by round, and ratios
are medians over the rounds' own ratios: the pipeline, the engine with as many adapters, the engine with the base alone, and
the engine with --registered adapters of which its slots hold 32, asked for by Zipf's law. Then, on the engine alone, images
arrive at random at --load of the rate that it reached, for latencies; and --requests short ones, for memory.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from itertools import accumulate, count
from pathlib import Path

import psutil
import torch
from diffusers import StableDiffusion3Pipeline

from corrector.adapters import save_adapter
from corrector.base import BaseSpec, load_transformer, resolve_base
from corrector.files import file_sha256
from serving.adapter_identity import AdapterIdentity
from serving.engine.engine import Engine
from serving.engine.request import GeneratedImage, ImageRequest
from serving.settings import MIB, EngineSettings
from tests.benchmarks import command
from tests.benchmarks.reference import write_pipeline
from tests.benchmarks.sampling import random_adapters
from tests.benchmarks.timing import interleaved
from tests.support.served_adapters import FolderSource

Adapters = dict[AdapterIdentity, Path]
Draw = Callable[[ImageRequest], object]
Ask = Callable[[int], ImageRequest]
"""The request of a number."""

_SLOTS = 32
_PROMPTS = ("a person lying on the grass", "a dog sitting on the beach", "a robot jumping on the street")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    options = _parser().parse_args(arguments)
    subject = command.subject(options)
    report = command.Report("serving", options, subject)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.model == "embedded" and options.layers is None:
            spec = resolve_base("embedded")
        else:
            spec = resolve_base(str(write_pipeline(subject, folder / "pipeline", subject.default_resolution)))
        adapters = write_adapters(spec, folder / "registry", options)
        settings = EngineSettings(
            cache=folder / "cache",
            device=options.device,
            threads=options.threads,
            rank=options.rank,
            slots=_SLOTS,
            compiled=options.compile,
        )
        engine = Engine(spec, FolderSource(adapters.items()), settings)
        try:
            for row in throughput(spec, engine, adapters, options):
                report.add(row)
            rate = next(
                row["images_per_second"]
                for row in report.rows
                if row["work"] == f"{options.adapters} adapters"
            )
            report.add(latency(engine, requests(spec, list(adapters)[: options.adapters]), rate, options))
        finally:
            engine.close()
        report.add(memory(spec, adapters, folder, options))
    report.show("images", COLUMNS)
    report.show(f"latency at {options.load:.0%} load", LATENCY)
    report.show("memory", MEMORY)


def throughput(
    spec: BaseSpec, engine: Engine, adapters: Adapters, options: argparse.Namespace
) -> Iterator[command.Row]:
    """Images a second of every design, in turns."""
    few = list(adapters)[: options.adapters]
    with ExitStack() as held:
        usual = held.enter_context(pipeline(spec, {one: adapters[one] for one in few}, engine.device))
        works: dict[str, tuple[Draw, Ask]] = {
            "usual design": (usual, requests(spec, few)),
            f"{len(few)} adapters": (_waiting(engine), requests(spec, few)),
            "base alone": (_waiting(engine), requests(spec, [None])),
            f"{len(adapters)} adapters, Zipf": (_waiting(engine), requests(spec, list(adapters), zipf=True)),
        }
        images = dict.fromkeys(works, options.images) | {
            "usual design": max(options.clients, options.images // 4)
        }
        loads: dict[str, int] = dict.fromkeys(works, 0)

        def timed(name: str) -> Callable[[], None]:
            numbers = count()

            def work() -> None:
                before = engine.stats().adapter_loads
                draw, ask = works[name]
                closed_loop(draw, ask, numbers, clients=options.clients, images=images[name])
                loads[name] += engine.stats().adapter_loads - before

            return work

        seconds = interleaved(
            {name: timed(name) for name in works}, device=engine.device, rounds=options.rounds, warmup=1
        )
    for name, timing in seconds.items():
        usual_seconds, base_seconds = seconds["usual design"], seconds["base alone"]
        yield {
            "work": name,
            "images_per_second": images[name] / timing.median,
            "over_usual": images[name] / images["usual design"] / timing.over(usual_seconds),
            "over_base": images[name] / images["base alone"] / timing.over(base_seconds),
            "adapter_loads": loads[name],
        }


def latency(engine: Engine, ask: Ask, rate: float, options: argparse.Namespace) -> command.Row:
    """Seconds from submission to image where they arrive at random, a Poisson process at a part of `rate`."""
    chance = random.Random(0)
    submitted: list[float] = []
    done: list[float] = [0.0] * options.arrivals
    futures: list[Future[GeneratedImage]] = []
    start = due = time.perf_counter()
    for number in range(options.arrivals):
        due += chance.expovariate(options.load * rate)
        time.sleep(max(0.0, due - time.perf_counter()))
        submitted.append(time.perf_counter())
        future = engine.submit(ask(number))

        def note(_: Future[GeneratedImage], number: int = number) -> None:
            done[number] = time.perf_counter()

        future.add_done_callback(note)
        futures.append(future)
    for future in futures:
        future.result()
    taken = sorted(end - begin for begin, end in zip(submitted, done, strict=True))
    p50, p99 = statistics.median(taken), taken[int(0.99 * (len(taken) - 1))]
    return {
        "load": options.load,
        "arrivals": len(taken),
        "arrivals_per_second": len(taken) / (submitted[-1] - start),
        "p50_seconds": p50,
        "p99_seconds": p99,
        "p99_over_p50": p99 / p50,
    }


def memory(spec: BaseSpec, adapters: Adapters, folder: Path, options: argparse.Namespace) -> command.Row:
    """What the process holds as short requests go by, all with prompts of their own; its caches are small, and soon full."""
    settings = EngineSettings(
        cache=folder / "small-cache",
        device=options.device,
        threads=options.threads,
        rank=options.rank,
        slots=_SLOTS,
        text_cache_bytes=MIB,
        adapter_cache_bytes=64 * MIB,
        disk_cache_bytes=128 * MIB,
    )
    engine = Engine(spec, FolderSource(adapters.items()), settings)
    unit = spec.vae_scale_factor * 2
    chosen = requests(spec, list(adapters), zipf=True)

    def short(number: int) -> ImageRequest:
        base = chosen(number)
        return ImageRequest(
            id=base.id,
            prompt=str(number),
            seed=number,
            num_inference_steps=2,
            guidance_scale=1.0,
            height=4 * unit,
            width=4 * unit,
            adapter=base.adapter,
        )

    numbers = count()
    held = []
    try:
        part = options.requests // 10
        for _ in range(10):
            closed_loop(_waiting(engine), short, numbers, clients=options.clients, images=part)
            gc.collect()
            held.append(psutil.Process().memory_info().rss / MIB)
    finally:
        engine.close()
    return {
        "requests": 10 * part,
        "mib_after_each_tenth": held,
        "first_fifth_mib": held[1],
        "end_mib": held[-1],
        "growth": held[-1] / held[1] - 1,
    }


def closed_loop(draw: Draw, ask: Ask, numbers: Iterator[int], *, clients: int, images: int) -> None:
    """Lets `clients` threads draw `images` in all, each its next when it has the last."""
    lock = threading.Lock()
    left = images
    failed: list[BaseException] = []

    def client() -> None:
        nonlocal left
        while not failed:
            with lock:
                if not left:
                    return
                left -= 1
                number = next(numbers)
            try:
                draw(ask(number))
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def requests(spec: BaseSpec, adapters: Sequence[AdapterIdentity | None], *, zipf: bool = False) -> Ask:
    """Requests in the base's own steps and guidance; adapters by chance, all alike or the n-th in proportion to 1/n."""
    cumulative = list(accumulate(1 / (place + 1) if zipf else 1.0 for place in range(len(adapters))))

    def ask(number: int) -> ImageRequest:
        (adapter,) = random.Random(number).choices(adapters, cum_weights=cumulative)
        return ImageRequest(
            id=str(number),
            prompt=_PROMPTS[number % len(_PROMPTS)],
            seed=number,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            height=spec.resolution,
            width=spec.resolution,
            adapter=adapter,
        )

    return ask


@contextmanager
def pipeline(spec: BaseSpec, adapters: Adapters, device: torch.device) -> Iterator[Draw]:
    """The usual design: diffusers' pipeline with all adapters loaded, one request at a time, its adapter set for each."""
    pipe = StableDiffusion3Pipeline.from_pretrained(
        spec.folder, local_files_only=True, torch_dtype=spec.compute_dtype(device)
    ).to(device)
    pipe.set_progress_bar_config(disable=True)
    names = {adapter: f"adapter_{number}" for number, adapter in enumerate(adapters)}
    for adapter, folder in adapters.items():
        pipe.load_lora_weights(str(folder), adapter_name=names[adapter])
    lock = threading.Lock()

    def draw(request: ImageRequest) -> object:
        with lock:
            assert request.adapter is not None
            pipe.set_adapters([names[request.adapter]])
            return pipe(
                request.prompt,
                num_inference_steps=request.num_inference_steps,
                guidance_scale=request.guidance_scale,
                height=request.height,
                width=request.width,
                max_sequence_length=spec.max_sequence_length,
                generator=torch.Generator("cpu").manual_seed(request.seed),
            ).images[0]

    yield draw


def write_adapters(spec: BaseSpec, folder: Path, options: argparse.Namespace) -> Adapters:
    """Random adapters for the base, as registered: all different, none of them nothing."""
    transformer = load_transformer(spec)
    written: Adapters = {}
    for number, adapter in enumerate(random_adapters(transformer, options.registered, options.rank)):
        place = folder / str(number)
        digest = file_sha256(save_adapter(adapter, place))
        written[AdapterIdentity(f"adapter-{number}", "1", digest)] = place
    return written


def _waiting(engine: Engine) -> Draw:
    return lambda request: engine.submit(request).result()


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("The serving engine beside one pipeline behind a lock.")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument(
        "--adapters", type=int, default=16, help="that the clients of the first designs ask for"
    )
    parser.add_argument("--registered", type=int, default=500)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--images", type=int, default=96, help="a round, of every design")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--load", type=float, default=0.8, help="of the closed loop's rate, for latencies")
    parser.add_argument("--arrivals", type=int, default=400)
    parser.add_argument("--requests", type=int, default=10_000, help="short ones, for memory")
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks")
    return parser


COLUMNS = {
    "work": "",
    "images_per_second": "images/s",
    "over_usual": "over the usual design",
    "over_base": "over the base alone",
    "adapter_loads": "adapter loads",
}
LATENCY = {
    "load": "load",
    "arrivals": "images",
    "arrivals_per_second": "a second",
    "p50_seconds": "p50, s",
    "p99_seconds": "p99, s",
    "p99_over_p50": "p99 / p50",
}
MEMORY = {
    "requests": "requests",
    "first_fifth_mib": "MiB after a fifth",
    "end_mib": "MiB at the end",
    "growth": "growth",
}


if __name__ == "__main__":
    main()
