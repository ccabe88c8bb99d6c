"""The files in which other programs describe containers: a module a kind of file."""
