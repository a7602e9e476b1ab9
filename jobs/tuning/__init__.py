"""`jobs.search`: searches hyper-parameters with Ray Tune; lanes train and score its trials in their slots."""
