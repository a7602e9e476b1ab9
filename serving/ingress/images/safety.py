"""The safety filter: open_nsfw's score of every image and preview."""

import numpy as np

from serving.ingress.http.errors import ApiError


def refuse_unsafe(pixels: np.ndarray, threshold: float) -> None:
    """Raise where the score of an image `[height, width, 3]`, uint8, is at least `threshold`.

    Raises:
        ApiError: 400, content_policy_violation.
    """
    import torch

    from corrector.evaluation.features import opennsfw

    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    _, unsafe = opennsfw().features_and_safety(image)
    if float(unsafe[0]) >= threshold:
        raise ApiError(
            400,
            "the image was withheld by this server's safety filter; change the prompt, or the seed",
            code="content_policy_violation",
            param="prompt",
        )
