"""Stands between a plugin and its engine, and writes down what either says, piece by piece.

`python3 recorder.py LISTEN ENGINE FILE`: each line of FILE is JSON with who spoke and what.
"""

import json
import selectors
import socket
import sys
from pathlib import Path


def main(listen: str, engine: str, path: str) -> None:
    """Take one plugin, and end with it."""
    with socket.socket(socket.AF_UNIX) as server, Path(path).open("w") as file:
        Path(listen).unlink(missing_ok=True)
        server.bind(listen)
        server.listen()
        plugin, _ = server.accept()
        theirs = socket.socket(socket.AF_UNIX)
        theirs.connect(engine)
        others = {plugin: theirs, theirs: plugin}
        with selectors.DefaultSelector() as selector, plugin, theirs:
            for end in others:
                selector.register(end, selectors.EVENT_READ, end)
            while True:
                for key, _ in selector.select():
                    sock: socket.socket = key.data
                    data = sock.recv(1 << 16)
                    if not data:
                        return
                    who = "plugin" if sock is plugin else "engine"
                    file.write(json.dumps({"who": who, "data": data.hex()}) + "\n")
                    file.flush()
                    others[sock].sendall(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
