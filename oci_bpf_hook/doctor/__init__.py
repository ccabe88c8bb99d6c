"""What can be wrong on a host and in a container, one check for each cause."""
