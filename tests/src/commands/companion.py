"""A long-lived command for tests: does what a job's arguments say, well or badly."""
import json
import os
import signal
import subprocess
import sys
import time


def say(*words):
    os.write(1, "".join(json.dumps(word) + "\n" for word in words).encode())


def do(job, what, args):
    about = {"id": job["id"]}

    def finish(result):
        say({"finished": {**about, "result": result}})

    match what:
        case "pid":
            finish(os.getpid())
        case "job":
            finish(job)
        case "cwd":
            open("left", "w").close()
            finish([os.getcwd(), sorted(os.listdir())])
        case "read":
            try:
                finish(open(args[0]).read())
            except OSError as error:
                finish(type(error).__name__)
        case "talk":
            say({"progress": {**about, "percent": 40, "text": "half way"}}, {"note": {**about, "notes": {"rows": 7}}})
            say({"step": {**about, "name": "source downloaded"}}, {"log": {**about, "level": "warn", "text": "slow"}})
            os.write(2, b"::note disk=sda\n")
            finish(None)
        case "dots":  # the line has no end
            os.write(2, b"some dots ...")
            finish(None)
        case "fail":
            say({"failed": {**about, "error": "no disk", "retry": args[0], "backtrace": "at line 7"}})
        case "die":
            os.write(2, b"no more memory\n")
            os._exit(3)
        case "nonsense":
            say({"finished": {"id": job["id"], "outcome": 1}})
        case "twice":
            say({"finished": about}, {"finished": about})
        case "other":
            say({"finished": {"id": job["id"] + 1000}})
        case "endless":
            while True:
                os.write(1, b"x" * 65536)
        case "hold":  # until a file is there
            say({"note": {**about, "notes": {"pid": os.getpid()}}})
            while not os.path.exists(args[0]):
                time.sleep(0.01)
            finish("held")
        case "heed":  # ends when it is told to
            say({"note": {**about, "notes": {"pid": os.getpid()}}})
            word = json.loads(sys.stdin.readline())
            assert word == {"cancel": about}, word
            say({"failed": {**about, "error": "as you wish"}})
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen(["sleep", "1000"])
            say({"note": {**about, "notes": {"pid": os.getpid(), "child": child.pid}}})
            time.sleep(1000)


place = sys.argv[1] if len(sys.argv) > 1 else None
if place:
    with open(f"{place}/starts", "a") as starts:
        starts.write("x\n")
    if os.path.exists(f"{place}/broken"):
        sys.exit("no configuration")
say({"ready": {}})
for line in iter(sys.stdin.readline, ""):
    job = json.loads(line)["job"]
    do(job, *job["args"][:1], job["args"][1:])
if place:
    with open(f"{place}/farewell", "a") as farewell:
        farewell.write("x\n")
