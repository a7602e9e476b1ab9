"""Draws images for many requests at once, on one device; independent of Ray, the registry and HTTP.

`engine` is the loop, `denoiser` one step of its batch, `fair_queue` the order of waiting requests; `adapter_cache` keeps
adapters on disk, `input_processor` in host memory, and `adapter_slots` on the device.
"""
