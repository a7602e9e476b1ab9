"""What an SD3 transformer costs, by arithmetic from its configuration: parameters, operations, memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TIME_CHANNELS = 256
_MLP_RATIO = 4
_SAVED_PER_TOKEN = 12.5
_SAVED_BY_NORMS = 2.2
_SAVED_BY_DUAL = 3.0
"""Activations that autograd keeps for the backward, in widths per token and layer, then what ``qk_norm`` and, per
patch, dual attention add: counted with ``torch.autograd.graph.saved_tensors_hooks`` over widths of 64 and 128, 64 to
144 patches and 32 to 64 tokens."""


@dataclass(frozen=True)
class TransformerCost:
    """Costs of one ``SD3Transformer2DModel``; a multiply-add counts as two operations, all else as none."""

    width: int
    layers: int
    dual_layers: int
    head_width: int
    qk_norm: bool
    patch: int
    in_channels: int
    out_channels: int
    text_width: int
    context_width: int
    pooled_width: int

    @staticmethod
    def of(config: Mapping[str, Any]) -> "TransformerCost":
        """From the transformer's ``config``, or its ``config.json``."""
        return TransformerCost(
            width=config["num_attention_heads"] * config["attention_head_dim"],
            layers=config["num_layers"],
            dual_layers=len(config.get("dual_attention_layers") or ()),
            head_width=config["attention_head_dim"],
            qk_norm=config.get("qk_norm") is not None,
            patch=config["patch_size"],
            in_channels=config["in_channels"],
            out_channels=config.get("out_channels") or config["in_channels"],
            text_width=config["joint_attention_dim"],
            context_width=config["caption_projection_dim"],
            pooled_width=config["pooled_projection_dim"],
        )

    @property
    def parameters(self) -> int:
        """Number of weights."""
        d, square = self.width, self.width * self.width + self.width
        image = 4 * square + self._mlp_parameters + 6 * square
        text = 4 * square + self._mlp_parameters + 6 * square
        last_text = 3 * square + 2 * square  # no output projection, no MLP, shift and scale only
        dual = 4 * square + 3 * square
        norms = (
            4 * self.head_width * self.layers + 2 * self.head_width * self.dual_layers if self.qk_norm else 0
        )
        embedding = self.in_channels * self.patch**2 * d + d
        conditioning = _linear(_TIME_CHANNELS, d) + square + _linear(self.pooled_width, d) + square
        context = _linear(self.text_width, self.context_width)
        head = 2 * square + _linear(d, self.patch**2 * self.out_channels)
        blocks = self.layers * image + (self.layers - 1) * text + last_text + self.dual_layers * dual
        return blocks + norms + embedding + conditioning + context + head

    def adapter_parameters(self, rank: int) -> int:
        """Weights of an adapter: on eight attention projections of every layer, seven of the last."""
        return (8 * self.layers - 1) * 2 * rank * self.width

    def forward_flops(self, patches: int, tokens: int) -> int:
        """One row's forward for ``patches`` image patches and ``tokens`` text tokens."""
        return (
            self._stream_flops(patches, tokens)
            + self._input_flops(patches, tokens)
            + self._attention_flops(patches, tokens)
        )

    def training_flops(self, patches: int, tokens: int, rank: int) -> int:
        """One row's forward and backward with an adapter of ``rank``.

        The base's weights get no gradient, so a Linear costs its forward once more, for the gradient of its
        input, and what no adapter precedes costs its forward only. Attention costs two and a half times its
        forward, since its scores are computed again; an adapter, twice.
        """
        adapters = 4 * self._adapter_tokens(patches, tokens) * rank * self.width
        attention = self._attention_flops(patches, tokens)
        return (
            2 * self._stream_flops(patches, tokens)
            + self._input_flops(patches, tokens)
            + attention
            + attention * 5 // 2
            + 3 * adapters
        )

    def activation_bytes(self, patches: int, tokens: int, itemsize: int) -> int:
        """What one row keeps for its backward, at ``itemsize`` bytes a number; ``qk_norm`` keeps float32."""
        numbers = self.layers * (patches + tokens) * self.width
        dual = _SAVED_BY_DUAL * self.dual_layers * patches * self.width
        norms = _SAVED_BY_NORMS * max(4, itemsize) if self.qk_norm else 0.0
        return int(numbers * (_SAVED_PER_TOKEN * itemsize + norms) + dual * itemsize)

    @property
    def _mlp_parameters(self) -> int:
        return _linear(self.width, _MLP_RATIO * self.width) + _linear(_MLP_RATIO * self.width, self.width)

    def _stream_flops(self, patches: int, tokens: int) -> int:
        """The Linears through which image and text pass: attention's projections, the MLPs, the output."""
        square = self.width**2
        per_layer = (4 + 2 * _MLP_RATIO) * square
        per_patch = self.layers * per_layer + self.dual_layers * 4 * square
        per_patch += self.patch**2 * self.out_channels * self.width
        per_token = (self.layers - 1) * per_layer + 3 * square
        return 2 * (patches * per_patch + tokens * per_token)

    def _input_flops(self, patches: int, tokens: int) -> int:
        """The Linears that see only inputs: embeddings, and the modulation by timestep and pooled text."""
        square = self.width**2
        modulation = (12 * self.layers - 4 + 3 * self.dual_layers + 2) * square
        conditioning = (_TIME_CHANNELS + self.pooled_width) * self.width + 2 * square
        embedding = patches * self.patch**2 * self.in_channels * self.width
        context = tokens * self.text_width * self.context_width
        return 2 * (modulation + conditioning + embedding + context)

    def _attention_flops(self, patches: int, tokens: int) -> int:
        joint = self.layers * (patches + tokens) ** 2
        return 4 * self.width * (joint + self.dual_layers * patches**2)

    def _adapter_tokens(self, patches: int, tokens: int) -> int:
        return self.layers * 4 * (patches + tokens) - tokens


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs
