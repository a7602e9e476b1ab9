"""Correct the prompts at which a Stable Diffusion 3 base fails, without touching the base.

The library knows diffusion and nothing of Ray: `jobs` and `serving` call it, it calls neither.
"""

import logging

# PEFT imports bitsandbytes where it is installed, which then recommends kernels that nothing here uses.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
