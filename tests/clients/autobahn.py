"""Runs Autobahn's cases against the WebSocket server at a URL, one after the other; tells each as a line of JSON.

Out: {"case", "behavior", "close", "about", "why"}, in the words of Autobahn's reports
"""

import asyncio
import json
import sys

from kosoku import FailureError, run_fuzzingclient


async def main():
    try:
        results = await run_fuzzingclient(sys.argv[1])
    except FailureError as failure:
        results = failure.results
    for result in results:
        line = {
            "case": result.case_id,
            "behavior": result.behavior.value,
            "close": result.behavior_close.value,
            "about": result.description,
            "why": f"{result.result} {result.result_close}",
        }
        print(json.dumps(line))


asyncio.run(main())
