"""The results of a correction and of a search on disk: `correction` for one finished prompt, `search` for a search.

`report` draws records and `registry` stores them; this package imports neither.
"""
