"""Latents are normalised as the transformer expects, with the VAE's shift and scale."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor

from corrector.base import LatentPosterior, decode_latents, encode_images, load_vae, resolve_base


@pytest.fixture(scope="module")
def vae(small_sd3: Path) -> AutoencoderKL:
    return load_vae(resolve_base(str(small_sd3)))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(11, 3, 16, 8, generator=torch.Generator().manual_seed(0))


def test_the_posterior_is_the_vae_s_shifted_and_scaled(vae: AutoencoderKL, images: torch.Tensor) -> None:
    posterior = encode_images(vae, images)
    assert len(posterior) == 11
    assert posterior.mean.shape == posterior.std.shape == (11, 4, 8, 4)
    with torch.no_grad():
        raw = vae.encode(images * 2 - 1).latent_dist
    noise = torch.randn(raw.mean.shape, generator=torch.Generator().manual_seed(1))
    expected = (raw.mean + raw.std * noise - vae.config.shift_factor) * vae.config.scaling_factor
    torch.testing.assert_close(posterior.sample(noise), expected, rtol=1e-5, atol=1e-5)
    assert abs(vae.config.shift_factor) > 0.1
    assert abs(vae.config.scaling_factor - 1) > 0.1


def test_decoding_is_that_of_the_pipeline(vae: AutoencoderKL) -> None:
    latents = torch.randn(11, 4, 8, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        raw = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
    expected = VaeImageProcessor().postprocess(raw, output_type="pt")
    found = decode_latents(vae, latents)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.min() >= 0
    assert found.max() <= 1


def test_half_precision_vaes_give_float32_results(small_sd3: Path, images: torch.Tensor) -> None:
    vae = load_vae(resolve_base(str(small_sd3)), dtype=torch.bfloat16)
    posterior = encode_images(vae, images[:2])
    assert posterior.mean.dtype == posterior.std.dtype == torch.float32
    assert decode_latents(vae, posterior.mean).dtype == torch.float32


def test_noise_broadcasts_over_a_posterior() -> None:
    posterior = LatentPosterior(torch.ones(2, 1, 1, 1), torch.full((2, 1, 1, 1), 0.5)).to("cpu")
    assert posterior.sample(torch.tensor(2.0)).flatten().tolist() == [2.0, 2.0]


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 4, 16, 16), (1, 3, 15, 16), (0, 3, 16, 16)])
def test_images_of_another_shape_are_refused(vae: AutoencoderKL, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 2"):
        encode_images(vae, torch.zeros(shape))
