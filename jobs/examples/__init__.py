"""Two example batch files, their exemplars, and the JSON Schema of a batch file."""
