#!/usr/bin/env python3
"""Reads task events and resumes by position. Needs: pip install websockets

    read.py http://127.0.0.1:3000 [TOPIC] [--after POSITION] [--count N]

Each event goes to stdout as one line of JSON. A program that must not miss anything over its own restarts keeps
`after` where it keeps the work it did, and writes both at once.
"""

import argparse
import json
import random
import sys
import time

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

FINAL = {1000, 1002, 1003, 1007, 1008, 1009, *range(4500, 5000)}  # close codes that say: don't come back


def position(event):
    return int(event["epoch"]), int(event["sequence"])


def read(url, last, count):
    """One connection. Returns the last position, how many are still wanted, and whether anything came."""
    started = count
    after = last if isinstance(last, str) else "%d:%d" % last
    with connect(f"{url}?after={after}", max_size=16 << 20, proxy=None) as socket:
        try:
            while count > 0:
                event = json.loads(socket.recv())
                if not isinstance(last, str) and position(event) <= last:
                    continue  # seen already
                last = position(event)
                print(json.dumps(event), flush=True)
                count -= 1
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            if code in FINAL:
                sys.exit(0 if code == 1000 else f"closed with {code}: {closed.rcvd.reason}")
            print(f"closed with {code}, coming back", file=sys.stderr)
    return last, count, count < started


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("topic", nargs="?", default="task")
    parser.add_argument("--after", default="earliest", help="EPOCH:OFFSET, or earliest")
    parser.add_argument("--count", type=int, default=sys.maxsize)
    args = parser.parse_args()
    url = args.url.rstrip("/").replace("http", "ws", 1) + "/sub/" + args.topic
    last, left, failures = args.after, args.count, 0
    while left > 0:
        came = False
        try:
            last, left, came = read(url, last, left)
        except InvalidStatus as refused:
            status, body = refused.response.status_code, (refused.response.body or b"").decode()
            if status < 500 and status != 429:
                sys.exit(f"refused with {status}: {body}")  # 410: the position is gone, begin anew or think
        except (InvalidHandshake, OSError) as error:
            print(f"no connection: {error}", file=sys.stderr)
        if left > 0:
            failures = 0 if came else failures + 1
            time.sleep(random.uniform(0.5, 1) * min(15, 0.1 * 2 ** min(failures, 10)))


main()
