"""Draws images for many requests at once, on one device; knows no Ray, no registry and no HTTP.

`engine` is the loop, `denoiser` one step of its batch, `fair_queue` the order of waiting requests, `adapter_cache` and
`adapter_slots` keep adapters on disk, in host memory and on the device.
"""
