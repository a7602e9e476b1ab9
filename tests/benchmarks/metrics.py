"""torchmetrics beside `corrector.evaluation`: processor seconds of the figures of one prompt on one thread, and differences.

`python -m tests.benchmarks.metrics [SIDE]` (pixels of an image; 256 takes a minute).
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from corrector.evaluation.distances import frechet_distance, kernel_distance
from corrector.evaluation.similarity import grey, paired_ssim, psnr_matrix, ssim_matrix

IMAGES, TRAINING, HELD_OUT, WIDTHS = 32, 8, 8, (1280, 1024)


class Given(torch.nn.Module):
    """An extractor for torchmetrics whose images are the features themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, images: Tensor) -> Tensor:
        """Images are features here."""
        return images


def fid(features: Tensor, reference: Tensor) -> float:
    """By torchmetrics."""
    extractor = Given(features.shape[1])
    metric = FrechetInceptionDistance(extractor, normalize=True, input_img_size=(1, 1, 1)).set_dtype(
        torch.float64
    )
    metric.update(features.double(), real=False)
    metric.update(reference.double(), real=True)
    return float(metric.compute())


def kid(features: Tensor, reference: Tensor) -> float:
    """By torchmetrics, whose subsets are equally large for both sides."""
    size = min(len(features), len(reference))
    metric = KernelInceptionDistance(Given(features.shape[1]), subsets=100, subset_size=size, normalize=True)
    metric.update(features, real=False)
    metric.update(reference, real=True)
    return float(metric.compute()[0])


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """All pairs by torchmetrics, an exemplar at a time."""
    x, y = grey(first), grey(second)
    columns = [
        structural_similarity_index_measure(x, each.expand_as(x), data_range=1.0, reduction="none")
        for each in y
    ]
    return torch.stack([column for column in columns if isinstance(column, Tensor)], dim=1)


def main(side: int = 256) -> None:
    """Print a row for each figure."""
    torch.set_num_threads(1)
    draws = torch.Generator().manual_seed(0)
    images = [torch.rand(IMAGES, 3, side, side, generator=draws) for _ in "bc"]
    exemplars = [torch.rand(count, 3, side, side, generator=draws) for count in (TRAINING, HELD_OUT)]
    own = [(each, each) for each in (*images, torch.cat(exemplars))]
    pairs = [*product(images, exemplars), *own]
    features = [
        (torch.randn(IMAGES, width, generator=draws), torch.randn(HELD_OUT, width, generator=draws) + 0.2)
        for width in WIDTHS
        for _ in images
    ]
    compared: list[tuple[str, Callable[..., object], Callable[..., object], list[tuple[Tensor, Tensor]]]] = [
        ("FID", fid, frechet_distance, features),
        ("KID", kid, kernel_distance, features),
        ("SSIM of all pairs", ssim, ssim_matrix, pairs),
        ("PSNR of all pairs (torchmetrics)", psnr_matrix, psnr_matrix, list(product(images, exemplars))),
        ("SSIM before and after (torchmetrics)", paired_ssim, paired_ssim, [(images[0], images[1])]),
    ]
    for name, theirs, ours, arguments in compared:
        seconds, found = zip(
            *(_timed(partial(_each, function, arguments)) for function in (theirs, ours)), strict=True
        )
        difference = max(float((one - other).abs().max()) for one, other in zip(*found, strict=True))
        print(f"{name:38} {seconds[0]:7.2f} s {seconds[1]:7.2f} s   differ by {difference:.2g}")


def _each(function: Callable[..., object], arguments: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [torch.as_tensor(function(*pair)) for pair in arguments]


def _timed(work: Callable[[], list[Tensor]]) -> tuple[float, list[Tensor]]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
