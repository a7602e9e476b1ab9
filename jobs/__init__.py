"""The commands that run on a Ray cluster, and their parts.

`jobs.correct` corrects a batch of failing prompts, `jobs.search` searches better hyper-parameters, `jobs.diagnose`
finds which prompts of a list fail, and `jobs.collect` makes a batch file of what users of the endpoint flagged (without Ray).
Corrections are defined in `corrector`.
"""
