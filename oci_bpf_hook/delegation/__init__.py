"""What a container asks for: its annotations, the request in them, and the four masks."""
