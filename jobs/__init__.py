"""What `ray job submit` runs. `python -m jobs.correct BATCH` corrects a batch of failing prompts, `jobs.search` looks for
hyper-parameters that do so better.

The jobs are thin: they place work on a Ray cluster and leave what a correction is to `corrector`.
"""
