"""What a correction and a search leave on disk: `correction` for one finished prompt, `search` for a search.

`report` draws records and `registry` stores them; a record knows neither.
"""
