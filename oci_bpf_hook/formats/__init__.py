"""Reads and writes the files in which other programs describe containers."""
