"""What figures are measured on: the machine, the versions, and the rates that bound any program on it."""

import gc
import hashlib
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

import corrector
from corrector.cost import vendor_rate

_SIZES = {"cuda": (4096, 8192, 16384), "cpu": (512, 1024, 2048)}
_COPIED_BYTES = {"cuda": 2**31, "cpu": 2**28}


@dataclass(frozen=True)
class Limits:
    """The rates that bound a program on one device in one dtype."""

    matrix_rate: float
    """FLOP/s of the fastest of several large matrix products, a multiply-add counted as two."""
    matrix_size: int
    """Side of the square matrices at which that was."""
    bandwidth: float
    """Bytes a second that a copy inside the device's memory reads and writes."""
    vendor_rate: float | None
    """Dense FLOP/s of the vendor's data sheet, where it is known."""


def measure_limits(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.5) -> Limits:
    """Measures for about ``seconds`` per matrix size; best of the repetitions, so that neighbours matter less."""
    rates: dict[int, float] = {}
    for size in _SIZES[device.type]:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        rates[size] = 2 * size**3 / _fastest(partial(torch.matmul, left, right), device, seconds)
    best = max(rates, key=lambda size: rates[size])
    source = torch.ones(_COPIED_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copying = _fastest(lambda: target.copy_(source), device, seconds)
    return Limits(rates[best], best, 2 * source.numel() / copying, vendor_rate(device_name(device), dtype))


def describe(device: torch.device) -> dict[str, object]:
    """The machine and the versions, as JSON can hold them."""
    return {
        "name": device_name(device),
        "device": device.type,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        **(_gpu(device) if device.type == "cuda" else {}),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "diffusers", "peft")},
        "code": code_version(),
    }


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()


def slug(device: torch.device) -> str:
    """The device's name as part of a file name: "nvidia-h200", "amd-epyc-2-cores"."""
    name = device_name(device) if device.type == "cuda" else f"{_cpu_name()} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def code_version() -> str:
    """First digits of the SHA-256 over the library's sources: equal code has an equal version, committed or not."""
    root = Path(corrector.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release_memory(device: torch.device) -> None:
    """Frees what earlier work left in cycles, and what PyTorch's allocator keeps for later."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _fastest(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Shortest time of ``work``, repeated for ``seconds`` but at least three times, after a warm-up."""
    work()
    synchronise(device)
    best, spent, repeats = float("inf"), 0.0, 0
    while spent < seconds or repeats < 3:
        start = time.perf_counter()
        work()
        synchronise(device)
        taken = time.perf_counter() - start
        best, spent, repeats = min(best, taken), spent + taken, repeats + 1
    return best


def _gpu(device: torch.device) -> dict[str, object]:
    asked = ["nvidia-smi", f"--id={device.index or 0}", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        driver = "unknown"
    return {
        "gpu_memory": torch.cuda.get_device_properties(device).total_memory,
        "driver": driver,
        "cuda": torch.version.cuda,
    }


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
