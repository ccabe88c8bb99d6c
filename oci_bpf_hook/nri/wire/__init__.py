"""NRI's protocol between an engine and its plugin: frames, calls and messages."""
