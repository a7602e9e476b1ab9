"""Drawing for many at once: one loop per device, whose rows each have their own prompt, adapter, seed, steps and guidance.

Knows no Ray, no registry and no HTTP: `engine` is the loop, `denoiser` its step, `adapters` and `slots` keep adapters in
host memory and on the device, `single_flight` keeps what is costly to make, `turns` is fair between users.
"""
