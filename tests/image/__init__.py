"""The proof that the image of cluster/Dockerfile builds and works; a command, not part of the test suite."""
