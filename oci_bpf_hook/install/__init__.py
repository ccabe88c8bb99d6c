"""Installs and removes everything, in an order in which no container's start can fail."""
