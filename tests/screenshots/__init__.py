"""The pictures of docs/: what the commands print, and the page, as a browser shows them.

`make pictures` makes them anew, of containers that run for that alone.
"""
