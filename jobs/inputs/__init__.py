"""What every job reads: the checked batch, the run's folders and lock, texts and exemplars encoded into the cache."""
