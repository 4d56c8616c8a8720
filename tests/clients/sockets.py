"""Drives WebSockets of Python's `websockets` by lines of JSON.

In:  {"session", "do": "open", "url", "subprotocols"?, "headers"?} | {"do": "send", "text" | "base64"}
     | {"do": "fragments", "parts"} | {"do": "ping"} | {"do": "close", "code"}
Out: {"session", "event": "open", "subprotocol"} | {"event": "refused", "status", "body"}
     | {"event": "message", "text" | "base64"} | {"event": "pong"} | {"event": "closed", "code", "reason"}
"""

import asyncio
import base64
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

sessions = {}


def tell(name, event, **more):
    print(json.dumps({"session": name, "event": event, **more}), flush=True)


async def session(name, order):
    try:
        socket = await connect(
            order["url"],
            subprotocols=order.get("subprotocols"),
            additional_headers=order.get("headers"),
            compression="deflate",
            max_size=None,
            ping_interval=None,
            open_timeout=60,
            close_timeout=60,
            proxy=None,
        )
    except InvalidStatus as e:
        body = (e.response.body or b"").decode("utf-8", "replace")
        tell(name, "refused", status=e.response.status_code, body=body)
        return
    except (InvalidHandshake, OSError) as e:
        tell(name, "refused", status=0, body=repr(e))
        return
    sessions[name] = socket
    tell(name, "open", subprotocol=socket.subprotocol)
    try:
        while True:
            message = await socket.recv()
            if isinstance(message, str):
                tell(name, "message", text=message)
            else:
                tell(name, "message", base64=base64.b64encode(message).decode())
    except ConnectionClosed:
        tell(name, "closed", code=socket.close_code, reason=socket.close_reason)


async def ping(name, socket):
    try:
        await (await socket.ping())
        tell(name, "pong")
    except ConnectionClosed:
        pass  # the session itself tells


async def obey(name, order, tasks):
    what = order["do"]
    if what == "open":
        tasks.append(asyncio.create_task(session(name, order)))
        return
    socket = sessions[name]
    try:
        if what == "send" and "text" in order:
            await socket.send(order["text"])
        elif what == "send":
            await socket.send(base64.b64decode(order["base64"]))
        elif what == "fragments":
            await socket.send(iter(order["parts"]))
        elif what == "ping":
            tasks.append(asyncio.create_task(ping(name, socket)))
        elif what == "close":
            tasks.append(asyncio.create_task(socket.close(order["code"])))
        else:
            raise ValueError(what)
    except ConnectionClosed:
        pass  # the session itself tells


async def main():
    stdin = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    tasks = []
    while line := await stdin.readline():
        order = json.loads(line)
        await obey(order["session"], order, tasks)


asyncio.run(main())
