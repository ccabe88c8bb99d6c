"""Text formats as they are written: strict JSON, YAML, and where in a file a value stands."""
