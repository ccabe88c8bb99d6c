"""What the hook costs in front of a container's start: `python -m tests.bench`, as root.

Everything is a ratio to a baseline of the same run, since times alone say more about the
machine than about the hook.  Nothing here fails because something is slow.
"""
