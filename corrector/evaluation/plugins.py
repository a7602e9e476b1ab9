"""Embeddings that plug in where their weights are, and what a scorecard says of those that are not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from corrector.errors import UserError
from corrector.evaluation.features import FeatureExtractor
from corrector.evaluation.images import resized
from corrector.evaluation.scorecard import NotRun

_NOT_BUNDLED = {
    "fid_inception": "no package carries torchmetrics' Inception weights, and no such extractor was given",
    "fid_clip": "no folder with CLIP's weights was given",
    "fid_dinov2": "no folder with DINOv2's weights was given",
    "PickScore": "its weights are in no package",
    "HPSv3": "its weights are in no package",
    "VQAScore": "its weights are in no package",
}
_BATCH = 8


def not_run_beside(extractors: Sequence[FeatureExtractor]) -> tuple[NotRun, ...]:
    """The metrics that the field uses and that these extractors leave out, each with its reason."""
    run = {f"fid_{extractor.name}" for extractor in extractors}
    return tuple(NotRun(name=name, reason=reason) for name, reason in _NOT_BUNDLED.items() if name not in run)


class VisionModelFeatures:
    """The pooled features of a CLIP or DINOv2 vision model in a local folder, as an extractor.

    The folder is what `save_pretrained` writes: config.json and model.safetensors. Images are resized by this
    package's one filter to the size that the model was made for, and normalised by the family's constants.
    """

    _NORMALISATION: ClassVar = {
        "clip_vision_model": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        "dinov2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }

    def __init__(self, name: str, folder: Path) -> None:
        """Load the model.

        Args:
            name: Of the extractor; metrics are called `fid_<name>`.
            folder: With config.json and safetensors weights; nothing is downloaded and no pickle is read.

        Raises:
            UserError: The folder holds no such model, or one of another family.
        """
        from transformers import AutoConfig, CLIPVisionModel, Dinov2Model

        try:
            config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder}: no vision model ({error}); expected a folder of save_pretrained"
            ) from None
        config = getattr(config, "vision_config", config)
        if config.model_type not in self._NORMALISATION:
            expected = " or ".join(self._NORMALISATION)
            raise UserError(f"{folder}: a model of type {config.model_type!r}; expected {expected}")
        family = CLIPVisionModel if config.model_type == "clip_vision_model" else Dinov2Model
        try:
            model: Any = family.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32
            )
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: its weights cannot be read ({error})") from None
        self.name = name
        self.dimensions = int(config.hidden_size)
        self._side = int(config.image_size)
        self._model = model.eval().requires_grad_(False)
        mean, deviation = self._NORMALISATION[config.model_type]
        self._mean, self._deviation = (torch.tensor(v).view(3, 1, 1) for v in (mean, deviation))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features `[N, d]` of `images` `[N, 3, H, W]` in 0..1."""
        found = [torch.empty(0, self.dimensions)]
        for batch in images.float().cpu().split(_BATCH):
            pixels = (resized(batch, self._side) - self._mean) / self._deviation
            found.append(self._model(pixel_values=pixels).pooler_output)
        return torch.cat(found)
