"""uWebSockets under load: what is published at /pub/TOPIC goes to all at /sub/TOPIC. Needs the package socketify.

Python runs once per published message; the fan-out, with its batching and corking, is uWebSockets' own C++.
"""

import sys

from socketify import App, OpCode

OPTIONS = {"max_payload_length": 1 << 20, "max_backpressure": 64 << 20, "idle_timeout": 0, "compression": 0}


def upgrade(res, req, context):
    key = req.get_header("sec-websocket-key")
    res.upgrade(key, "", "", context, user_data=req.get_url().split("/", 2)[2])


def publishes(ws, message, opcode):
    app.publish(ws.get_user_data(), message, OpCode.TEXT)


app = App()
app.ws("/sub/*", OPTIONS | {"upgrade": upgrade, "open": lambda ws: ws.subscribe(ws.get_user_data())})
app.ws("/pub/*", OPTIONS | {"upgrade": upgrade, "message": publishes})
app.listen(int(sys.argv[1]), lambda config: None)
app.run()
