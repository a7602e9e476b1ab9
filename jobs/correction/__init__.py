"""`jobs.correct`: samples, scores and registers what lanes train, and reports it."""
