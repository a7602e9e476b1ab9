"""How a Ray cluster starts. `cluster.local` runs one on this machine and knows nothing of what runs there."""
