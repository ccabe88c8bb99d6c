"""What runs in a machine, as its root: modules with cases, and what they share."""
