"""The embedded base: a complete, tiny Stable Diffusion 3 (`weights/`) and everything that made it.

`world` draws and captions scenes, `train` makes the pipeline from nothing, `export` writes its folder.
"""
