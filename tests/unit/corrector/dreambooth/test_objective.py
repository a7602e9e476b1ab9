"""The objective against diffusers' own functions and a literal transcription of its training script's formulas."""

from typing import get_args

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from torch import Tensor

from corrector.base import LatentPosterior
from corrector.dreambooth.objective import (
    NoiseTable,
    TimestepDensity,
    loss_weights,
    noisy_latents,
    row_losses,
    sample_density,
    velocity,
)
from corrector.prompts import HyperParameters
from tests.support.small_sd3 import small_transformer, transformer_inputs

DENSITIES: tuple[TimestepDensity, ...] = get_args(TimestepDensity)
SCHEDULER = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_densities_are_those_of_the_hyper_parameters() -> None:
    assert get_args(HyperParameters.model_fields["timestep_density"].annotation) == DENSITIES


@pytest.mark.parametrize("density", DENSITIES)
def test_density_draws_what_diffusers_draws(density: TimestepDensity) -> None:
    expected = compute_density_for_timestep_sampling(
        density, 1000, logit_mean=0.3, logit_std=1.4, mode_scale=1.29, generator=seeded(5)
    )
    drawn = sample_density(density, 1000, logit_mean=0.3, logit_std=1.4, mode_scale=1.29, generator=seeded(5))
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-7)
    assert drawn.min() >= -1e-6 and drawn.max() <= 1


def test_noise_levels_are_the_training_schedule_even_while_the_scheduler_samples() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    untouched = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    scheduler.set_timesteps(7)
    u = torch.tensor([0.0, 0.25, 0.5, 0.999, 0.9999999])
    sigmas, timesteps = NoiseTable.of(scheduler).at(u)
    indices = (u * 1000).long()
    assert torch.equal(sigmas, untouched.sigmas[indices])
    assert torch.equal(timesteps, untouched.timesteps[indices])
    assert sigmas[0] == 1 and timesteps[0] == 1000


def test_quantiles_outside_the_table_mean_its_ends() -> None:
    table = NoiseTable.of(SCHEDULER)
    sigmas, timesteps = table.at(torch.tensor([1.0, -1e-7]))
    assert sigmas.tolist() == [table.sigmas[-1], table.sigmas[0]]
    assert timesteps.tolist() == [table.timesteps[-1], table.timesteps[0]]


def test_noisy_latents_are_the_schedulers() -> None:
    latents, noise = torch.randn(2, 6, 4, 8, 8, generator=seeded(0))
    sigmas, timesteps = NoiseTable.of(SCHEDULER).at(torch.rand(6, generator=seeded(1)))
    expected = SCHEDULER.scale_noise(latents, timesteps, noise)
    torch.testing.assert_close(noisy_latents(latents, noise, sigmas), expected, rtol=0, atol=1e-6)


def test_latents_carry_the_vaes_shift_and_scale() -> None:
    moments = torch.randn(3, 8, 4, 4, generator=seeded(2))
    vae = AutoencoderKL(latent_channels=4, scaling_factor=1.7, shift_factor=0.3)
    reference = DiagonalGaussianDistribution(moments)
    drawn = reference.sample(seeded(3))
    expected = (drawn - vae.config.shift_factor) * vae.config.scaling_factor
    posterior = LatentPosterior((reference.mean - 0.3) * 1.7, reference.std * 1.7)
    noise = torch.randn(3, 4, 4, 4, generator=seeded(3))
    torch.testing.assert_close(posterior.sample(noise), expected, rtol=0, atol=1e-6)


def reference_loss(
    prediction: Tensor, latents: Tensor, noise: Tensor, sigmas: Tensor, density: str, precondition: bool
) -> Tensor:
    """As the training script writes it: sigma ``[N, 1, 1, 1]``, explicit preconditioning, one mean over the batch."""
    sigmas = sigmas.view(-1, 1, 1, 1)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    target = noise - latents
    if precondition:
        prediction = prediction * (-sigmas) + noisy
        target = latents
    weighting = compute_loss_weighting_for_sd3(density, sigmas=sigmas)
    errors = weighting.float() * (prediction.float() - target.float()) ** 2
    return torch.mean(errors.reshape(target.shape[0], -1), 1).mean()


@pytest.mark.parametrize("precondition", [True, False])
@pytest.mark.parametrize("density", DENSITIES)
def test_loss_and_gradients_equal_the_training_scripts(density: TimestepDensity, precondition: bool) -> None:
    transformer = small_transformer("sd35")
    tuned = [block.attn.to_q.weight for block in transformer.transformer_blocks]
    for weight in tuned:
        weight.requires_grad_(True)
    inputs = transformer_inputs(6, seed=3)
    latents, noise = torch.randn(2, *inputs["hidden_states"].shape, generator=seeded(4))
    u = compute_density_for_timestep_sampling(
        density, 6, logit_mean=0.0, logit_std=1.0, mode_scale=1.29, generator=seeded(7)
    )
    indices = (u * SCHEDULER.config.num_train_timesteps).long()

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        changed = inputs | {"hidden_states": noisy, "timestep": timesteps}
        prediction: Tensor = transformer(**changed, return_dict=False)[0]
        return prediction

    reference_sigmas = SCHEDULER.sigmas[indices].view(-1, 1, 1, 1)
    reference_noisy = (1.0 - reference_sigmas) * latents + reference_sigmas * noise
    prediction = predict(reference_noisy, SCHEDULER.timesteps[indices])
    expected = reference_loss(prediction, latents, noise, SCHEDULER.sigmas[indices], density, precondition)
    expected_gradients = torch.autograd.grad(expected, tuned)

    sigmas, timesteps = NoiseTable.of(SCHEDULER).at(u)
    prediction = predict(noisy_latents(latents, noise, sigmas), timesteps)
    weights = loss_weights(density, sigmas, precondition=precondition)
    loss = row_losses(prediction, velocity(latents, noise), weights).mean()
    gradients = torch.autograd.grad(loss, tuned)

    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        assert reference.abs().max() > 1e-4
        torch.testing.assert_close(gradient, reference, rtol=1e-6, atol=1e-6)


def test_golden_losses() -> None:
    """Fixed by hand from the formulas, so that a change of both sides at once would show."""
    sigmas = torch.tensor([0.5, 0.25])
    prediction, target = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 2.0)
    expected = {
        ("uniform", False): [4.0, 4.0],
        ("uniform", True): [1.0, 0.25],
        ("sigma_sqrt", True): [4.0, 4.0],
        ("cosmap", False): [5.0929582, 4.0743665],
    }
    for (density, precondition), losses in expected.items():
        weights = loss_weights(density, sigmas, precondition=precondition)  # type: ignore[arg-type]
        assert row_losses(prediction, target, weights).tolist() == pytest.approx(losses, abs=1e-6)
