"""Validates each line of stdin against the JSON Schema at a URL; tells the first line that does not fit."""

import json
import sys
import urllib.request

from jsonschema import Draft202012Validator

with urllib.request.urlopen(sys.argv[1]) as answer:
    schema = json.load(answer)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
count = 0
for line in sys.stdin:
    instance = json.loads(line)
    for error in validator.iter_errors(instance):
        sys.exit(f"line {count + 1}: {error.json_path}: {error.message}\n{line}")
    count += 1
print(count)
