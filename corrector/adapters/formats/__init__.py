"""Adapter files of diffusers, PEFT, ComfyUI, kohya's scripts and other trainers: this package reads and writes them.

An adapter is stored as diffusers' ``pytorch_lora_weights.safetensors`` beside PEFT's ``adapter_config.json``. The names of
its weights, and alpha in the file's metadata, are those of ``StableDiffusion3Pipeline.save_lora_weights`` in diffusers
0.42 (``loaders/lora_base.py``), so ``load_lora_weights`` reads what :func:`save_adapter` writes.
"""
