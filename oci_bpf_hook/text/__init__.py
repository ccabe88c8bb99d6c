"""Text formats: strict JSON, YAML, and the line and column of each value in a file."""
