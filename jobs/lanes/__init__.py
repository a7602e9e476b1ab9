"""Lanes: Ray Train runs that train packs of fine-tunes, the queue that feeds them, and the plan of how many there are."""
