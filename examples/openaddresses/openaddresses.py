#!/usr/bin/env python3
"""The tasks of the walk-through, as a long-lived command. Needs nothing but Python.

    openaddresses.py push|run|summary|nightly

It reads where things are from the environment: OPENADDRESSES_RAW (files of the repository, below it `SHA/PATH`),
OPENADDRESSES_API (GitHub's API), OPENADDRESSES_REPOSITORY, OPENADDRESSES_OUTPUT (a directory), OPENADDRESSES_TOKEN (for
the node, if it asks for one) and MINIUM_URL (the node). See docs/protocol.md, clauses X-1 to X-9, for what it speaks.
"""
import csv
import hashlib
import io
import json
import math
import os
import pathlib
import re
import sys
import tempfile
import urllib.error
import urllib.request

REPOSITORY = os.environ.get("OPENADDRESSES_REPOSITORY", "openaddresses/openaddresses")
RAW = os.environ.get("OPENADDRESSES_RAW", f"https://raw.githubusercontent.com/{REPOSITORY}")
API = os.environ.get("OPENADDRESSES_API", "https://api.github.com")
OUTPUT = pathlib.Path(os.environ.get("OPENADDRESSES_OUTPUT", "output"))
NODE = os.environ.get("MINIUM_URL", "http://127.0.0.1:3000")
TOKEN = os.environ.get("OPENADDRESSES_TOKEN")

URGENT, BATCH = 100, -100
JOBS_AT_ONCE = 1000
SOURCE = re.compile(r"sources(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+\.json")
SOURCE_BYTES_MAX, DATA_BYTES_MAX, TREE_BYTES_MAX = 1 << 20, 1 << 30, 64 << 20
WHOLE_BYTES_MAX = 64 << 20  # of data that is read as a whole
SECONDS = 60  # without a word of a server
FIELDS = "number", "street", "unit", "city", "postcode"
# where a feature is, among its properties: no property is called so
POINT = {"lon": "geometry, longitude", "lat": "geometry, latitude"}


class Bad(Exception):
    """Wrong with what was asked for: another attempt is useless."""


# The node's side


def say(**word):
    print(json.dumps(word), flush=True)


def ask(path, body=None):
    headers = {"Content-Type": "application/json"}
    if TOKEN:
        headers["Authorization"] = f"Bearer {TOKEN}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(NODE + path, data, headers), timeout=SECONDS) as answer:
        return json.load(answer)


def wanted(job, task, name, priority):
    """A job that this one wants done; when it wants that again, in a second attempt, it is there already."""
    key = hashlib.sha256(f"{job['id']}/{name}".encode()).hexdigest()
    return {"task": task, "priority": priority, "attempts": 3, "origin": job["id"], "key": key, "unique": "1d"}


def run_of(job, source, ref, priority):
    about = {"source": source, "ref": ref, "fresh": priority >= 0}
    # never two runs of one source at once
    more = {"args": [about], "notes": {"source": source}, "partition": source}
    return {**wanted(job, "openaddresses/run", source, priority), **more}


# The world's side


def fetch(url, etag=None):
    """Opens a URL; None when it has not changed since `etag`."""
    if not url.startswith(("http://", "https://")):
        raise Bad(f"{url!r} is no http or https URL")
    headers = {"User-Agent": "minium-openaddresses"}
    if etag:
        headers["If-None-Match"] = etag
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 304:
            return None
        if error.code in (404, 410):
            raise Bad(f"{url} is not there ({error.code})") from None
        raise


def read(url, bytes_max):
    with fetch(url) as answer:
        body = answer.read(bytes_max + 1)
    if len(body) > bytes_max:
        raise Bad(f"{url} has more than {bytes_max} bytes")
    return body


def write(path, text):
    """Whole or not at all, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


# The tasks


def push(job):
    """A push: one urgent run for each source file that it added or changed, and a last word when all have ended."""
    repository, sha, commits = job["args"]
    changed = {}
    for commit in commits or []:
        for path in commit.get("added", []) + commit.get("modified", []):
            changed[path] = True
        for path in commit.get("removed", []):
            changed.pop(path, None)
    sources = [path for path in changed if SOURCE.fullmatch(path)]
    if sources:
        jobs = [run_of(job, source, sha, URGENT) for source in sources]
        last = wanted(job, "openaddresses/summary", "summary", URGENT)
        notes = {"repository": repository, "sha": sha}
        last.update(args=[sources], notes=notes, after=list(range(len(jobs))), when="ended")
        ask("/api/v1/jobs", [*jobs, last])
    return {"sources": sources}


def summary(job):
    """How a push went: it fails if any of its sources did, so its own end is the status of the commit."""
    (sources,) = job["args"]
    ended, place = [], 0
    while place is not None:
        page = ask(f"/api/v1/jobs/{job['id']}/parents?from={place}")
        ended += page["parents"]
        place = page["next"]
    failed = [(source, run) for source, run in zip(sources, ended) if run["state"] != "finished"]
    bad = [f"{source}: {run['error'] or run['state']}" for source, run in failed]
    if bad:
        raise Bad("; ".join(bad))
    return {"sources": len(ended), "addresses": sum(run["result"]["addresses"] for run in ended)}


def nightly(job):
    """Every source there is, when nothing else is to be done."""
    tree = json.loads(read(f"{API}/repos/{REPOSITORY}/git/trees/HEAD?recursive=1", TREE_BYTES_MAX))
    sources = [entry["path"] for entry in tree["tree"] if SOURCE.fullmatch(entry["path"])]
    for first in range(0, len(sources), JOBS_AT_ONCE):
        some = sources[first : first + JOBS_AT_ONCE]
        ask("/api/v1/jobs", [run_of(job, source, tree["sha"], BATCH) for source in some])
        say(progress={"id": job["id"], "percent": 100 * (first + len(some)) / len(sources)})
    return {"sources": len(sources)}


def run(job):
    """One source: its data, checked, in one form."""
    about = job["args"][0]
    source = about["source"]
    if not SOURCE.fullmatch(source):
        raise Bad(f"{source!r} is no source file")
    text = read(f"{RAW}/{about['ref']}/{source}", SOURCE_BYTES_MAX)
    data, conform = understood(text)
    place = OUTPUT / source.removeprefix("sources/").removesuffix(".json")
    rows_path, about_path = place.with_suffix(".ndjson"), place.with_suffix(".about.json")
    known = json.loads(about_path.read_text()) if about_path.exists() and rows_path.exists() else {}
    definition = hashlib.sha256(text).hexdigest()
    same = not about.get("fresh") and known.get("definition") == definition
    answer = fetch(data, known.get("etag") if same else None)
    if answer is None:
        return {**known["result"], "skipped": "its data has not changed"}
    with answer:
        rows, rejected = converted(job, answer, conform)
    if not rows or rejected > len(rows):
        raise Bad(f"{rejected} of {rejected + len(rows)} rows have no number, street or coordinates")
    lines = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    result = {"addresses": len(rows), "rejected": rejected, "sha256": hashlib.sha256(lines.encode()).hexdigest()}
    write(rows_path, lines)
    # last: whoever finds it finds its rows, too
    write(about_path, json.dumps({"definition": definition, "etag": answer.headers.get("ETag"), "result": result}))
    return result


def understood(text):
    """The data URL and the conform of a source file."""
    try:
        layer = json.loads(text)["layers"]["addresses"][0]
        data, conform = layer["data"], layer["conform"]
        kind = conform["format"]
        if kind == "geojson":
            conform = {**conform, **POINT}
        missing = [name for name in ("number", "street", "lon", "lat") if name not in conform]
    except (ValueError, LookupError, TypeError) as error:
        raise Bad(f"the source file cannot be understood: {error!r}") from None
    if kind not in FORMATS:
        raise Bad(f"the source file is of format {kind!r}; {' and '.join(FORMATS)} are read here")
    if missing:
        raise Bad(f"the conform of the source file has no {', '.join(missing)}")
    return data, conform


def converted(job, answer, conform):
    """Rows in one form, and how many had to be left out."""
    size = int(answer.headers.get("Content-Length") or 0)
    read_columns, bytes_max = FORMATS[conform["format"]]
    counted = Counted(answer, size, bytes_max, lambda percent: say(progress={"id": job["id"], "percent": percent}))
    present, table = read_columns(io.BufferedReader(counted))
    used = {name: [value] if isinstance(value, str) else value for name, value in conform.items() if name != "format"}
    absent = {column for columns in used.values() for column in columns} - set(present)
    if absent:
        raise Bad(f"the data has no column {', '.join(sorted(absent))}")
    rows, rejected = [], 0
    for row in table:
        values = {
            name: " ".join(filter(None, ((row.get(column) or "").strip() for column in columns)))
            for name, columns in used.items()
        }
        place = coordinates(values)
        if place and values["number"] and values["street"]:
            rows.append({**{name: values.get(name, "") for name in FIELDS}, **place})
        else:
            rejected += 1
    return rows, rejected


# Formats of data: each is read as the names of its columns, and rows of texts


def columns_of_csv(body):
    table = csv.DictReader(io.TextIOWrapper(body, "utf-8-sig", "replace", newline=""))
    return table.fieldnames or [], table


def columns_of_geojson(body):
    """Properties are columns, and so are the coordinates of what is a point."""
    try:
        rows = [columns_of_feature(feature) for feature in json.load(body)["features"]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Bad(f"the data is no GeoJSON: {error!r}") from None
    return [*POINT.values(), *{name: None for row in rows for name in row}], rows


def columns_of_feature(feature):
    row = {name: text_of(value) for name, value in (feature["properties"] or {}).items()}
    geometry = feature["geometry"] or {}
    if geometry.get("type") == "Point":
        row.update(zip(POINT.values(), map(text_of, geometry["coordinates"])))
    return row


def text_of(value):
    """As a table would have it: no house has the number 12.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


FORMATS = {"csv": (columns_of_csv, DATA_BYTES_MAX), "geojson": (columns_of_geojson, WHOLE_BYTES_MAX)}


def coordinates(values):
    try:
        lon, lat = float(values["lon"]), float(values["lat"])
    except ValueError:
        return None
    good = math.isfinite(lon) and math.isfinite(lat) and abs(lon) <= 180 and abs(lat) <= 90 and (lon, lat) != (0, 0)
    return {"lon": round(lon, 7), "lat": round(lat, 7)} if good else None


class Counted(io.RawIOBase):
    """A body that tells how far it has been read, and ends what never ends."""

    def __init__(self, body, size, bytes_max, tell):
        self.body, self.size, self.bytes_max, self.tell = body, size, bytes_max, tell
        self.read_bytes, self.told = 0, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        count = self.body.readinto(buffer)
        self.read_bytes += count
        if self.read_bytes > self.bytes_max:
            raise Bad(f"the data has more than {self.bytes_max} bytes")
        percent = 100 * self.read_bytes // self.size if self.size else 0
        if percent >= self.told + 10:
            self.told = percent
            self.tell(min(percent, 100))
        return count


def main():
    task = {"push": push, "run": run, "summary": summary, "nightly": nightly}[sys.argv[1]]
    say(ready={})
    for line in sys.stdin:
        job = json.loads(line).get("job")
        if job is None:
            continue  # a cancel: the worker ends us soon, and nothing is half written
        about = {"id": job["id"]}
        try:
            say(finished={**about, "result": task(job)})
        except Bad as error:
            say(failed={**about, "error": str(error), "retry": False})
        except Exception as error:  # such as a server that is away: another attempt may find it
            say(failed={**about, "error": f"{type(error).__name__}: {error}"})


main()
