"""Drawing for many at once: one loop per device, whose rows each have their own prompt, adapter, seed, steps and guidance.

Knows no Ray, no registry and no HTTP: `engine` is the loop, `encoding` turns prompts into embeddings, `adapters` and `slots`
keep adapters in host memory and on the device, `turns` is fair between users.
"""
