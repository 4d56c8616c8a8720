#!/usr/bin/env python3
"""GitHub and two counties in one small web server, to try the walk-through without either. Needs nothing but Python.

    stand_in.py PORT

It has the files of one repository, of whatever commit (below /raw), the list of them, the counties' data, and takes statuses
of commits: GET /statuses tells those that were posted. It lives in memory, on loopback, and believes everybody.
"""
import http.server
import json
import sys

TAG = '"one"'
ALAMEDA = """\
LON,LAT,NUM,PRE,NAME,CITY
-122.25,37.8,12,N,Main St,Oakland
-122.26,37.81,14,,Grand Ave,Oakland
,,16,,Nowhere,
"""
BERLIN = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {"hausnr": 7, "strasse": "Unter den Linden", "plz": "10117"},
            "geometry": {"type": "Point", "coordinates": [13.39, 52.517]},
        }
    ],
}


def source(url, conform):
    layer = {"name": "county", "data": url, "protocol": "http", "conform": conform}
    return json.dumps({"schema": 2, "layers": {"addresses": [layer]}})


def files(base):
    table = {"format": "csv", "number": "NUM", "street": ["PRE", "NAME"], "lon": "LON", "lat": "LAT", "city": "CITY"}
    features = {"format": "geojson", "number": "hausnr", "street": "strasse", "postcode": "plz"}
    return {
        "sources/us/ca/alameda.json": source(f"{base}/data/alameda.csv", table),
        "sources/de/berlin.json": source(f"{base}/data/berlin.geojson", features),
        "sources/de/wrong.json": source(f"{base}/data/berlin.geojson", {**features, "street": "street"}),
    }


class StandIn(http.server.BaseHTTPRequestHandler):
    statuses = []

    def do_GET(self):
        repository = files(f"http://{self.headers['Host']}")
        if self.path == "/statuses":
            self.tell(200, "".join(json.dumps(status) + "\n" for status in self.statuses))
        elif "/git/trees/" in self.path:
            self.tell(200, json.dumps({"sha": "HEAD", "tree": [{"path": path} for path in repository]}))
        elif self.path.startswith("/data/") and self.headers.get("If-None-Match") == TAG:
            self.tell(304, "")
        elif self.path == "/data/alameda.csv":
            self.tell(200, ALAMEDA)
        elif self.path == "/data/berlin.geojson":
            self.tell(200, json.dumps(BERLIN))
        else:
            text = repository.get(self.path.split("/", 3)[-1])
            self.tell(200 if text else 404, text or "")

    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.statuses.append({"sha": self.path.split("/")[-1], **said})
        self.tell(201, "{}")

    def tell(self, status, text):
        body = text.encode()
        self.send_response(status)
        if self.command == "GET" and self.path.startswith("/data/"):
            self.send_header("ETag", TAG)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), StandIn).serve_forever()
