#!/usr/bin/env python3
"""Takes jobs over one WebSocket. Needs: pip install websockets

    worker.py http://127.0.0.1:3000 TASK [--credit N] [--count N]

A job's arguments are {"steps": 3}; each step is noted, and {"fail": "why"} ends it badly. The channel TASK must be
durable on the node. MINIUM_TOKEN, if set, shows who works.
"""
import argparse
import asyncio
import json
import os
import random
import sys
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException
parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("task")
for option, usual in ("--credit", 2), ("--count", -1):
    parser.add_argument(option, type=int, default=usual)
args = parser.parse_args()
unsaid = {}  # how jobs ended, by lease, until the node has answered: said again over the next socket, which is harmless
left = args.count


socket = None  # the one that is open, or was: who works goes on over a cut, and says the rest over the next
running = {}


async def say(frame):
    try:
        await socket.send(json.dumps(frame))
    except ConnectionClosed:
        pass  # notes are lost, which harms nobody; how a job ended is in `unsaid`


async def run(job, lease):  # works on one job, and returns its last word
    about = {"job": job["id"], "lease": lease}
    given = job["args"] if isinstance(job["args"], dict) else {}  # without arguments it is []
    steps = given.get("steps", 1)
    for step in range(1, steps + 1):
        await asyncio.sleep(0.05)  # the work
        progress = {"percent": 100 * step / steps, "text": f"step {step}"}
        await say({"op": "note", **about, "notes": {"by": "python"}, "progress": progress})
        await say({"op": "extend", **about})  # whoever works long does so at a third of the lease
    bad = given.get("fail")
    good = {"op": "ack", **about, "result": {"steps": steps}}
    return {"op": "nack", **about, "error": bad, "retry": False} if bad else good


async def work(job, lease):
    unsaid[lease] = await run(job, lease)
    running.pop(job["id"], None)
    await say({**unsaid[lease], "ref": lease})


async def session():
    global left
    for lease, word in list(unsaid.items()):
        await say({**word, "ref": lease})
    if (free := args.credit - len(running)) > 0:
        await say({"op": "pull", "topic": args.task, "credit": free})
    async for text in socket:
        frame = json.loads(text)
        if frame["op"] == "job":
            running[frame["job"]["id"]] = asyncio.create_task(work(frame["job"], frame["lease"]))
        elif frame["op"] in ("cancel", "cancelled") and frame["job"] in running:
            running.pop(frame["job"]).cancel()
            await say({"op": "pull", "topic": args.task})
        elif frame.get("ref") in unsaid and not frame.get("problem", {}).get("retryable"):
            word = unsaid.pop(frame["ref"])  # done, or somebody else has the job
            print(json.dumps({"job": word["job"], "said": word["op"], "answer": frame["op"]}), flush=True)
            if (left := left - 1) == 0:
                return
            await say({"op": "pull", "topic": args.task})


async def main():
    global socket
    url, failures = args.url.rstrip("/").replace("http", "ws", 1) + "/ws", 0
    token = os.environ.get("MINIUM_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    while left != 0:
        try:
            async with connect(url, subprotocols=["minium.v1"], additional_headers=headers, max_size=1 << 24) as socket:
                failures = 0
                await session()
        except (OSError, WebSocketException) as error:
            print(f"no connection: {error}", file=sys.stderr)
            failures += 1
            await asyncio.sleep(random.uniform(0.5, 1) * min(15, 0.1 * 2 ** min(failures, 10)))


asyncio.run(main())
