"""Parameters, operations and memory of an SD3 transformer, computed from its configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TIME_CHANNELS = 256
_MLP_RATIO = 4
_SAVED_PER_TOKEN = 12
"""Activations, in widths per token, that autograd keeps of a block: queries, keys, values and attention's output, what the
adapters read (twice one), the two layer norms' inputs and the MLP's four, before its activation function."""
_SAVED_BY_DUAL = 4
"""The same of dual attention, per patch: no adapter reads there."""
_BACKWARD_PER_PATCH = 8
"""Widths per patch that the backward of a block's MLP holds for itself, on top of what is kept."""
_RECOMPUTED_PER_PATCH = 6
"""The same where a block was recomputed, less what is free by then."""
_SAMPLED_PER_TOKEN = 13.5
"""Widths per token that a forward without gradients holds at its worst moment. ``tests/benchmarks/activations.py``
measures all five on the Stable Diffusion 3 family."""


@dataclass(frozen=True)
class TransformerCost:
    """Costs of one ``SD3Transformer2DModel``; a multiply-add counts as two operations, everything else as none."""

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

        The base's weights get no gradient: the backward of a Linear costs one forward, and none before the first
        adapter. The backward of attention costs two and a half forwards, that of an adapter two.
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

    def recompute_flops(self, patches: int, tokens: int, rank: int) -> int:
        """What gradient checkpointing adds to :meth:`training_flops`: one more forward of a row's blocks."""
        outside = patches * self.patch**2 * (self.in_channels + self.out_channels) * self.width
        outside += tokens * self.text_width * self.context_width
        outside += (_TIME_CHANNELS + self.pooled_width) * self.width + 2 * self.width**2
        outside += 2 * self.width**2  # the head's modulation
        adapters = 4 * self._adapter_tokens(patches, tokens) * rank * self.width
        return self.forward_flops(patches, tokens) - 2 * outside + adapters

    def activation_bytes(
        self, patches: int, tokens: int, itemsize: int, *, rank: int = 0, checkpointing: bool = False
    ) -> int:
        """Peak memory of one row's forward and backward, at ``itemsize`` bytes a number.

        Attention is fused (it keeps its inputs, its output and one number per token and head), and the row has its own
        copy of its adapter of ``rank`` in the base's dtype. With ``checkpointing`` all blocks' inputs are kept, and the
        activations of one block at a time.
        """
        joint, image = (patches + tokens) * self.width, patches * self.width
        # The norms of queries and keys keep their inputs, and a float32 copy if these are narrower.
        norms = 2 * (itemsize + (4 if itemsize < 4 else 0)) if self.qk_norm else 0
        plain = joint * (_SAVED_PER_TOKEN * itemsize + norms)
        plain += rank * itemsize * (4 * (patches + tokens) + 16 * self.width)
        dual = image * (_SAVED_BY_DUAL * itemsize + norms)
        inputs = itemsize * (image + tokens * self.text_width)
        if checkpointing:
            # The backward goes from the last block to the first and drops their inputs; dual attention comes first.
            last = self.layers * joint * itemsize + plain
            widest = self.dual_layers * joint * itemsize + plain + dual
            return (
                inputs
                + max(last, widest if self.dual_layers else 0)
                + _RECOMPUTED_PER_PATCH * image * itemsize
            )
        return inputs + self.layers * plain + self.dual_layers * dual + _BACKWARD_PER_PATCH * image * itemsize

    def sampling_bytes(self, patches: int, tokens: int, itemsize: int) -> int:
        """Peak memory of one row's forward without gradients."""
        return int(_SAMPLED_PER_TOKEN * (patches + tokens) * self.width * itemsize)

    @property
    def block_parameters(self) -> int:
        """Weights of the largest block, modulation included."""
        square = self.width * self.width + self.width
        norms = (4 + 2 * bool(self.dual_layers)) * self.head_width if self.qk_norm else 0
        dual = 7 * square if self.dual_layers else 0
        return 2 * (4 * square + self._mlp_parameters + 6 * square) + dual + norms

    @property
    def _mlp_parameters(self) -> int:
        return _linear(self.width, _MLP_RATIO * self.width) + _linear(_MLP_RATIO * self.width, self.width)

    def _stream_flops(self, patches: int, tokens: int) -> int:
        """The Linears that image and text pass through: attention's projections, the MLPs, the output."""
        square = self.width**2
        per_layer = (4 + 2 * _MLP_RATIO) * square
        per_patch = self.layers * per_layer + self.dual_layers * 4 * square
        per_patch += self.patch**2 * self.out_channels * self.width
        per_token = (self.layers - 1) * per_layer + 3 * square
        return 2 * (patches * per_patch + tokens * per_token)

    def _input_flops(self, patches: int, tokens: int) -> int:
        """The Linears that see inputs only: embeddings, and the modulation by timestep and pooled text."""
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
