"""What a run of the script draws, computes and changes, taken down at its edges: PyTorch, diffusers and accelerate.

The script's own lines run untouched. Its random draws and the VAE's results pass through wrappers, the transformer has a
hook, and the ``Accelerator`` through which it differentiates, clips and steps is a subclass that looks on.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, SD3Transformer2DModel
from diffusers.models.autoencoders import vae as autoencoders
from torch import Tensor

Weights = Mapping[str, tuple[Tensor, Tensor]]
"""Module path in the transformer -> (``A [rank, in]``, ``B [out, rank]``): LoRA weights, or their gradients."""


@dataclass(frozen=True)
class ReferenceStep:
    """One optimiser step of the script, ``R`` rows: the exemplars, then the class images; everything on the CPU."""

    pixels: Tensor
    """``[R, 3, H, W]`` in -1..1."""
    posterior_noise: Tensor
    """The VAE's standard normal draws, ``[R, C, h, w]``."""
    latents: Tensor
    """Normalised, ``[R, C, h, w]``."""
    noise: Tensor
    u: Tensor
    """Quantiles of the noise levels, ``[R]``."""
    sigmas: Tensor
    """``[R]``."""
    timesteps: Tensor
    noisy: Tensor
    prompt: Tensor
    """``[1 or 2, T, D]``: the instance prompt, then the class prompt."""
    pooled: Tensor
    prediction: Tensor
    """The transformer's output, before preconditioning."""
    loss: Tensor
    """Of the whole step, preservation included."""
    gradients: Weights
    """Before clipping."""
    gradient_norm: Tensor
    """Of all gradients together, before clipping."""
    weights: Weights
    """After the optimiser's step."""
    learning_rate: float
    """With which the optimiser stepped."""


class Recorder:
    """Collects the steps of one run; without ``capture`` it only reads the clock after each."""

    def __init__(self, *, capture: bool) -> None:
        self.initial: Weights = {}
        """The LoRA weights before the first step; empty without ``capture``."""
        self.steps: list[ReferenceStep] = []
        self.ends: list[float] = []
        """The clock after every optimiser step, in seconds."""
        self.peak_bytes: int | None = None
        """Most memory held on the GPU at once since the first step; None on a CPU."""
        self._capture = capture
        self._current: dict[str, Any] = {}
        self._transformer: SD3Transformer2DModel | None = None

    @contextmanager
    def watching(self, script: ModuleType, *, cpu: bool) -> Iterator[None]:
        """Within the ``with``, a run of ``script`` is taken down; on the CPU even where there is a GPU, if ``cpu``."""
        with ExitStack() as stack:
            stack.enter_context(patch.object(script, "Accelerator", self._accelerator(cpu)))
            if self._capture:
                for owner, name, wrap in (
                    (script, "compute_density_for_timestep_sampling", self._result_is("u")),
                    (script, "compute_loss_weighting_for_sd3", self._weighting),
                    (autoencoders, "randn_tensor", self._result_is("posterior_noise")),
                    (torch, "randn_like", self._drawing),
                    (AutoencoderKL, "encode", self._encoding),
                ):
                    stack.enter_context(patch.object(owner, name, wrap(getattr(owner, name))))
            yield
        self._transformer = None

    def _accelerator(self, cpu: bool) -> type[Accelerator]:
        recorder = self

        class WatchedAccelerator(Accelerator):  # type: ignore[misc]
            """The real one, without a tracker."""

            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options | {"log_with": None, "cpu": cpu})

            def prepare(self, *parts: Any, **options: Any) -> Any:
                for part in parts:
                    if isinstance(part, SD3Transformer2DModel):
                        recorder._watch(part)
                    if isinstance(part, torch.optim.Optimizer):
                        part.register_step_post_hook(recorder._stepped)
                return super().prepare(*parts, **options)

            def backward(self, loss: Tensor, **options: Any) -> None:
                super().backward(loss, **options)
                recorder._keep(loss=loss, gradients=recorder._lora(gradients=True))

            def clip_grad_norm_(self, *args: Any, **options: Any) -> Any:
                norm = super().clip_grad_norm_(*args, **options)
                recorder._keep(gradient_norm=norm)
                return norm

        return WatchedAccelerator

    def _watch(self, transformer: SD3Transformer2DModel) -> None:
        self._transformer = transformer
        self.initial = self._lora()
        if self._capture:
            transformer.register_forward_hook(self._called, with_kwargs=True)

    def _called(self, _module: Any, _args: Any, given: Mapping[str, Any], output: tuple[Tensor, ...]) -> None:
        self._keep(
            noisy=given["hidden_states"],
            timesteps=given["timestep"],
            prompt=given["encoder_hidden_states"],
            pooled=given["pooled_projections"],
            prediction=output[0],
        )

    def _stepped(self, optimiser: torch.optim.Optimizer, _args: Any, _options: Any) -> None:
        if optimiser.param_groups[0]["params"][0].is_cuda:
            torch.cuda.synchronize()  # the script waits for its loss a few lines further on anyway
            if self.ends:
                self.peak_bytes = torch.cuda.max_memory_allocated()
            else:
                torch.cuda.reset_peak_memory_stats()
        self.ends.append(time.perf_counter())
        if self._capture:
            self._keep(weights=self._lora(), learning_rate=float(optimiser.param_groups[0]["lr"]))
            self.steps.append(
                ReferenceStep(**{field.name: self._current[field.name] for field in fields(ReferenceStep)})
            )
            self._current = {}

    def _keep(self, **values: Any) -> None:
        if self._capture:
            self._current |= {
                name: _copy(value) if isinstance(value, Tensor) else value for name, value in values.items()
            }

    def _lora(self, *, gradients: bool = False) -> Weights:
        """A copy of the LoRA weights, or of their gradients, by module path; empty without ``capture``."""
        if not self._capture or self._transformer is None:
            return {}
        halves: dict[str, list[Tensor]] = {}
        for name, parameter in self._transformer.named_parameters():
            module, separator, _ = name.partition(".lora_")
            if separator:
                tensor = parameter.grad if gradients else parameter
                halves.setdefault(module, []).append(
                    _copy(torch.zeros_like(parameter) if tensor is None else tensor)
                )
        return {module: (down, up) for module, (down, up) in halves.items()}

    def _result_is(self, name: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
        def wrap(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def wrapper(*args: Any, **options: Any) -> Tensor:
                result = function(*args, **options)
                self._keep(**{name: result})
                return result

            return wrapper

        return wrap

    def _weighting(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def wrapper(weighting_scheme: str, sigmas: Tensor) -> Tensor:
            self._keep(sigmas=sigmas.flatten())
            return function(weighting_scheme, sigmas)

        return wrapper

    def _drawing(self, randn_like: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def wrapper(latents: Tensor, **options: Any) -> Tensor:
            noise = randn_like(latents, **options)
            self._keep(latents=latents, noise=noise)
            return noise

        return wrapper

    def _encoding(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(vae: AutoencoderKL, pixels: Tensor, *args: Any, **options: Any) -> Any:
            self._keep(pixels=pixels)
            return encode(vae, pixels, *args, **options)

        return wrapper


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
