"""From the host to a device without waiting for it."""

import torch
from torch import Tensor


def upload(values: Tensor, device: torch.device) -> Tensor:
    """``values``, a host tensor, on ``device``; the host goes on at once.

    A plain copy to a CUDA device, or an index that is a Python list, makes the host wait for everything queued there.
    """
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
