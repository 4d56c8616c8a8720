#!/usr/bin/env python3
"""Publishes messages over one WebSocket. Needs: pip install websockets

    write.py http://127.0.0.1:3000 [TOPIC] [--count N]

Nothing is acknowledged in plain mode, but what the server refuses it says: one text frame with the key `problem`.
"""

import argparse
import json
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def refusals(socket, wait):
    """Those that have come; with `wait`, all until the server has closed."""
    try:
        while True:
            yield json.loads(socket.recv(timeout=None if wait else 0))["problem"]
    except (TimeoutError, ConnectionClosed):
        return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("topic", nargs="?", default="example/python")
    parser.add_argument("--count", type=int, default=1)
    args = parser.parse_args()
    url = args.url.rstrip("/").replace("http", "ws", 1) + "/pub/" + args.topic
    refused = []
    with connect(url, proxy=None) as socket:
        for n in range(1, args.count + 1):
            socket.send(json.dumps({"n": n, "from": "python"}))
            refused += refusals(socket, wait=False)
        # The server reads in order: its answer to this ping comes behind all refusals.
        socket.ping().wait(timeout=10)
        refused += refusals(socket, wait=False)
    for problem in refused:
        print(f"{problem['code']}: {problem.get('detail')}", file=sys.stderr)
    sys.exit(1 if refused else 0)


main()
