"""`jobs.search`: hyper-parameters on Ray Tune, whose trials train and are scored in the slots of lanes."""
