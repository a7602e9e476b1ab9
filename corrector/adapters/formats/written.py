"""The formats in which adapters are written; `writing` writes them, and imports torch."""

from typing import Literal, get_args

AdapterFormat = Literal["diffusers", "peft", "comfyui"]
FORMATS: tuple[AdapterFormat, ...] = get_args(AdapterFormat)
"""Formats that can be written. ComfyUI's is kohya's, which kohya's sd-scripts load as well."""
