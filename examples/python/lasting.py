#!/usr/bin/env python3
"""A long-lived command: one process takes one job after the other. Needs nothing but Python.

    minium worker --ndjson --task example=./lasting.py

A job's arguments are [{"steps": 3}]; each step is told, and {"fail": "why"} ends it badly.
"""
import json
import os
import select
import sys

unread = b""


def say(**word):
    print(json.dumps(word), flush=True)


def line():  # or nothing, at the end of input. What a buffer of Python's had read ahead, select would not see
    global unread
    while b"\n" not in unread:
        more = os.read(sys.stdin.fileno(), 65536)
        if not more:
            return None
        unread += more
    first, unread = unread.split(b"\n", 1)
    return first


def is_cancelled(seconds):  # while there is a job, only a word that ends it can come
    return bool(unread) or bool(select.select([sys.stdin.fileno()], [], [], seconds)[0])


def run(job):
    about = {"id": job["id"]}
    args = job["args"][0] if job["args"] else {}
    steps = args.get("steps", 1)
    for step in range(1, steps + 1):
        if is_cancelled(0.01):  # the work
            return say(failed={**about, "error": "cancelled"})
        say(progress={**about, "percent": 100 * step / steps, "text": f"step {step}"})
    say(note={**about, "notes": {"by": "python"}})
    if "fail" in args:
        return say(failed={**about, "error": args["fail"], "retry": False})
    say(finished={**about, "result": {"steps": steps}})


say(ready={})
while (text := line()) is not None:
    word = json.loads(text)
    if "job" in word:
        run(word["job"])
