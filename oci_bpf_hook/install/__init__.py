"""Where everything is installed, and in which order."""
