"""SSIM and PSNR between two sets of images: reported because the paper reports them, not used by the gate.

A flat image of an output's mean colour scores higher than a real output in both, so neither shows a correct picture.
torchmetrics is imported where it is used: its import takes 1.7 s of a process's time.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

MAX_PSNR = 100.0
"""dB: the score of identical images, whose PSNR is infinite."""

_KERNEL, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_CHUNK_PIXELS = 1_000_000


def ssim_matrix(first: Tensor, second: Tensor) -> Tensor:
    """SSIM `[N, M]` of the grey versions of `first` `[N, 3, H, W]` and `second` `[M, 3, H, W]`, both in 0..1.

    The structural similarity of Wang et al. 2004 with its 11 x 11 Gaussian window of sigma 1.5, reflected at the edges.
    torchmetrics computes the same to 1e-5, but blurs five times per pair. For the pairs of one prompt at 256 pixels a side
    it takes 53 s; this function takes 13 s (`python -m tests.benchmarks.metrics`), as it computes an image's moments once.
    """
    x, y = _padded(grey(first)), _padded(grey(second))
    window = _window(x)
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    variance_x = (_blur(x * x, window) - mean_x.square()).clamp_min(0)
    variance_y = (_blur(y * y, window) - mean_y.square()).clamp_min(0)
    scores = torch.empty(len(x), len(y))
    step = max(1, _CHUNK_PIXELS // max(1, y.numel()))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        pairs = (x[rows, None] * y[None]).flatten(0, 1)
        means = mean_x[rows, None] * mean_y[None]
        covariance = _blur(pairs, window).reshape(means.shape) - means
        contrast = (2 * covariance + _C2) / (variance_x[rows, None] + variance_y[None] + _C2)
        luminance = (2 * means + _C1) / (mean_x[rows, None].square() + mean_y[None].square() + _C1)
        scores[rows] = (luminance * contrast).mean(dim=(2, 3, 4))
    return scores


def paired_ssim(first: Tensor, second: Tensor) -> float:
    """Mean over rows of the SSIM of the grey versions of `first` and `second`, both `[N, 3, H, W]` in 0..1."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    mean = structural_similarity_index_measure(grey(first), grey(second), data_range=1.0)
    assert isinstance(mean, Tensor)
    return float(mean)


def psnr_matrix(first: Tensor, second: Tensor) -> Tensor:
    """PSNR `[N, M]` in dB over all channels of `first` `[N, 3, H, W]` and `second` `[M, 3, H, W]`, at most `MAX_PSNR`.

    torchmetrics would pool the errors of a batch; `dim` makes it score each pair by its own. Errors are added in float64:
    in float32 the sum depends on the layout of the images in memory.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    score = partial(peak_signal_noise_ratio, data_range=1.0, dim=(1, 2, 3), reduction="none")
    images, references = first.double(), second.double()
    scores = torch.stack([score(images, each.expand_as(images)) for each in references], dim=1)
    return scores.float().clamp_max(MAX_PSNR)


def over_all_pairs(scores: Tensor) -> float:
    """The mean of `scores` `[N, M]`: the pairing "all pairs"."""
    return float(scores.mean())


def over_best_exemplar(scores: Tensor) -> float:
    """The mean over images of each one's highest of `scores` `[N, M]`: the pairing "best exemplar"."""
    return float(scores.amax(1).mean())


def dissimilarity(images: Tensor) -> float:
    """1 less the mean SSIM of two different images of `[N, 3, H, W]`."""
    return 1 - inside_set(ssim_matrix(images, images))


def inside_set(scores: Tensor) -> float:
    """The mean of `scores` `[N, N]` of a set with itself, without each image's score with itself."""
    n = len(scores)
    return float((scores.sum() - scores.trace()) / (n * (n - 1)))


def grey(images: Tensor) -> Tensor:
    """Luma `[N, 1, H, W]` of `images` `[N, 3, H, W]` (ITU-R 601, as Pillow's mode "L")."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=images.dtype)
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def _padded(images: Tensor) -> Tensor:
    if min(images.shape[-2:]) < _KERNEL:
        raise ValueError(f"images of {tuple(images.shape[-2:])} pixels: SSIM needs {_KERNEL} a side")
    return functional.pad(images, (_KERNEL // 2,) * 4, mode="reflect")


def _window(images: Tensor) -> Tensor:
    positions = torch.arange(_KERNEL, dtype=images.dtype) - (_KERNEL - 1) / 2
    window = torch.exp(-(positions / _SIGMA).square() / 2)
    return window / window.sum()


def _blur(images: Tensor, window: Tensor) -> Tensor:
    """`images` `[N, 1, H + 10, W + 10]` under the window: `[N, 1, H, W]`."""
    return functional.conv2d(functional.conv2d(images, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
