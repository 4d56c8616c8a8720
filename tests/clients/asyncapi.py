"""Judges the AsyncAPI document on stdin by the published rules in a file (JSON Schema, draft 07); tells what breaks them."""

import json
import sys

from jsonschema import Draft7Validator

with open(sys.argv[1], encoding="utf-8") as file:
    rules = json.load(file)
faults = list(Draft7Validator(rules).iter_errors(json.load(sys.stdin)))
for fault in faults[:10]:
    print(f"{fault.json_path}: {fault.message}", file=sys.stderr)
sys.exit(1 if faults else 0)
