"""LoRA adapters: one as tensors (:class:`Adapter`), many in one forward (:class:`AdapterBank`), and their
files.

The lowest layer of the library: it imports nothing of `base` or `prompts`.
"""

from typing import TYPE_CHECKING

from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
    from corrector.adapters.adapter import SD3_TARGETS, Adapter, AdapterError
    from corrector.adapters.bank import AdapterBank, layout_of
    from corrector.adapters.formats.reading import (
        PEFT_WEIGHTS_NAME,
        WEIGHTS_NAME,
        LoraFile,
        load_adapter,
        read_lora,
    )
    from corrector.adapters.formats.writing import (
        adapter_bytes,
        convert_adapter,
        export_adapter,
        save_adapter,
    )
    from corrector.adapters.formats.written import FORMATS, AdapterFormat
    from corrector.adapters.layout import Layout, PackedAdapter
    from corrector.adapters.transfer import copy_to_device

__all__ = [
    "FORMATS",
    "PEFT_WEIGHTS_NAME",
    "SD3_TARGETS",
    "WEIGHTS_NAME",
    "Adapter",
    "AdapterBank",
    "AdapterError",
    "AdapterFormat",
    "Layout",
    "LoraFile",
    "PackedAdapter",
    "adapter_bytes",
    "convert_adapter",
    "copy_to_device",
    "export_adapter",
    "layout_of",
    "load_adapter",
    "read_lora",
    "save_adapter",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "adapter": ("SD3_TARGETS", "Adapter", "AdapterError"),
        "bank": ("AdapterBank", "layout_of"),
        "formats.reading": ("PEFT_WEIGHTS_NAME", "WEIGHTS_NAME", "LoraFile", "load_adapter", "read_lora"),
        "formats.written": ("FORMATS", "AdapterFormat"),
        "formats.writing": ("adapter_bytes", "convert_adapter", "export_adapter", "save_adapter"),
        "layout": ("Layout", "PackedAdapter"),
        "transfer": ("copy_to_device",),
    },
)
