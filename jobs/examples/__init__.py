"""The example batch, its exemplars, and what draws them."""
