"""The reference: ``examples/dreambooth/train_dreambooth_lora_sd3.py`` of a diffusers checkout, run from its own file."""

import gc
import hashlib
import importlib.util
import json
import logging
import random
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import diffusers
import numpy as np
import peft  # noqa: F401 - looks for torchvision when it is first imported
import torch
import transformers
from accelerate.state import AcceleratorState

from corrector.errors import UserError
from tests.reference.recording import Recorder, ReferenceStep, Weights
from tests.reference.transforms import in_place_of_torchvision

SCRIPT = Path("examples/dreambooth/train_dreambooth_lora_sd3.py")
CLIP_TOKENS = 77
"""To which the script pads for both CLIPs, whatever their tokenizers say."""


@dataclass(frozen=True)
class ReferenceRun:
    """What one run of the script did."""

    step_seconds: list[float]
    """From one optimiser step to the next, the warm-up left out; the VAE's encoding and the data loader included."""
    peak_bytes: int | None
    """Most memory that PyTorch held on the GPU at once in a step after the first; None on a CPU.

    Loading and encoding the prompt, with all text encoders on the GPU, come before and may need more.
    """
    adapter: Path
    """Folder of the saved LoRA."""
    initial: Weights = field(default_factory=dict)
    """LoRA weights before the first step; like ``steps`` only where the run was captured."""
    steps: list[ReferenceStep] = field(default_factory=list)

    @property
    def seconds_per_step(self) -> float:
        """The median."""
        return statistics.median(self.step_seconds)


class ReferenceScript:
    """The training script in ``checkout``, a working tree of huggingface/diffusers."""

    def __init__(self, checkout: Path) -> None:
        """Raises :class:`UserError` if the script is not there or does not import."""
        self.path = checkout / SCRIPT
        if not self.path.is_file():
            raise UserError(f"{checkout}: no {SCRIPT} here; give a checkout of huggingface/diffusers")
        self._module = _load(self.path)

    @property
    def version(self) -> str:
        """First digits of the file's SHA-256; a checkout need not be a repository."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]

    def defaults(self) -> Mapping[str, Any]:
        """The script's options where nothing but what it insists on is given."""
        needed = {"pretrained_model_name_or_path": "", "instance_data_dir": "", "instance_prompt": ""}
        return vars(self._module.parse_args(_command_line(needed)))

    def train(
        self,
        pipeline_folder: Path,
        *,
        images: Path,
        prompt: str,
        output: Path,
        rank: int,
        steps: int,
        batch_size: int,
        resolution: int,
        learning_rate: float,
        seed: int,
        mixed_precision: str = "no",
        max_sequence_length: int = 77,
        warm_up: int = 2,
        capture: bool = False,
        cpu: bool = False,
        **options: str | int | float | bool,
    ) -> ReferenceRun:
        """One run of the script's ``main`` with these of its options; ``options`` are more, by its own names.

        ``images`` is a folder with nothing but images, a multiple of ``batch_size`` in number. ``warm_up`` steps do not
        count towards the time. ``capture`` takes down every step. Runs on the GPU where there is one, unless ``cpu``.
        With ``mixed_precision="bf16"`` the script's LoRA weights and optimiser state are bfloat16 too.
        """
        if len(list(images.iterdir())) % batch_size:
            raise ValueError(
                f"{images}: a multiple of {batch_size} images, or the script's last batch is smaller"
            )
        if steps <= max(1, warm_up):
            raise ValueError(f"{steps} steps leave none to time after a warm-up of {warm_up}")
        if capture and options.get("cache_latents"):
            raise ValueError("a run with cached latents cannot be captured: what it draws is drawn elsewhere")
        _check_clip_lengths(pipeline_folder)
        wanted: dict[str, object] = {
            "pretrained_model_name_or_path": pipeline_folder,
            "instance_data_dir": images,
            "instance_prompt": prompt,
            "output_dir": output,
            "rank": rank,
            "max_train_steps": steps,
            "train_batch_size": batch_size,
            "resolution": resolution,
            "learning_rate": learning_rate,
            "seed": seed,
            "mixed_precision": mixed_precision,
            "max_sequence_length": max_sequence_length,
            "lr_warmup_steps": 0,
            **options,
        }
        args = self._module.parse_args(_command_line(wanted))
        recorder = Recorder(capture=capture)
        # Some of the script's functions read a global of the name that only its __main__ part sets.
        with (
            _undisturbed(),
            patch.object(self._module, "args", args, create=True),
            recorder.watching(self._module, cpu=cpu),
        ):
            self._module.main(args)
        return ReferenceRun(
            step_seconds=[end - start for start, end in pairwise(recorder.ends[max(0, warm_up - 1) :])],
            peak_bytes=recorder.peak_bytes,
            adapter=output,
            initial=recorder.initial,
            steps=recorder.steps,
        )


def _load(path: Path) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        lenient = _warn_below(diffusers.utils.check_min_version)
        with in_place_of_torchvision(), patch.object(diffusers.utils, "check_min_version", lenient):
            spec.loader.exec_module(module)
    except ImportError as error:
        raise UserError(
            f"{path}: does not import with diffusers {diffusers.__version__} ({error}); "
            "check out the release of diffusers that is installed, or one nearer to it"
        ) from error
    return module


def _warn_below(check_min_version: Callable[[str], None]) -> Callable[[str], None]:
    """``check_min_version`` with a warning for its error: a script from the main branch asks for a version to come."""

    def check(minimum: str) -> None:
        try:
            check_min_version(minimum)
        except ImportError:
            warnings.warn(
                f"the script asks for diffusers {minimum}; {diffusers.__version__} is installed", stacklevel=2
            )

    return check


def _check_clip_lengths(pipeline_folder: Path) -> None:
    for part in ("text_encoder", "text_encoder_2"):
        positions = json.loads((pipeline_folder / part / "config.json").read_bytes())[
            "max_position_embeddings"
        ]
        if positions < CLIP_TOKENS:
            raise ValueError(
                f"{pipeline_folder / part} reads {positions} tokens; the script pads to {CLIP_TOKENS}: "
                "see tests.reference.pipelines.with_clip_length"
            )


def _command_line(options: Mapping[str, object]) -> list[str]:
    """As ``parse_args`` reads it; a flag is True or left out."""
    words = []
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not False:
            words += [f"--{name}", str(value)]
    return words


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Silences the script, and puts back what it sets for the whole process.

    That is random states, logging, TF32 and accelerate's one state.
    """
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    root, disabled = logging.getLogger(), logging.root.manager.disable
    handlers, level = list(root.handlers), root.level
    verbosity = [library.get_verbosity() for library in libraries]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    tf32 = torch.backends.cuda.matmul.allow_tf32
    AcceleratorState._reset_state(reset_partial_state=True)
    logging.disable(logging.WARNING)
    try:
        with torch.random.fork_rng(), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for library, own in zip(libraries, verbosity, strict=True):
            library.set_verbosity(own)
        gc.collect()
