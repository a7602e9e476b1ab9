"""The drawn world that the embedded base was trained on, and the making of that base.

`scenes` draws and captions scenes, `train` makes the pipeline from nothing, `export` writes its folder;
`make_exemplars` and `make_picture` draw the examples' exemplars and the README's picture.
"""
