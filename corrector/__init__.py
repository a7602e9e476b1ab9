"""Correct the prompts at which a Stable Diffusion 3 base fails, without touching the base.

The library knows diffusion and nothing of Ray: `jobs` and `serving` call it, it calls neither.
"""
