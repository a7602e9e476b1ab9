"""Copies from the host to a device that the host does not wait for."""

import torch
from torch import Tensor


def copy_to_device(values: Tensor, device: torch.device) -> Tensor:
    """The host tensor ``values`` on ``device``.

    A plain copy to a CUDA device, or an index that is a Python list, makes the host wait for everything queued there.
    """
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
