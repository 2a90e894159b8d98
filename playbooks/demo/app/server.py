"""The shop of the demo: a page, and /health with the version of this release."""

import http.server
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
VERSION = (HERE / "VERSION").read_text().strip()
SETTINGS = json.loads((HERE / "settings.json").read_text())


class Shop(http.server.BaseHTTPRequestHandler):
    """Answers /health, and the page for everything else."""

    def do_GET(self):
        """Healthy needs a database to be named; the page does not."""
        if self.path == "/health":
            healthy = bool(SETTINGS.get("database"))
            health = {"status": "healthy" if healthy else "no database", "version": VERSION}
            self.answer(200 if healthy else 503, "application/json", json.dumps(health))
        else:
            page = (HERE / "pages" / "index.html").read_text()
            self.answer(200, "text/html", page.replace("VERSION", VERSION))

    def answer(self, status, kind, text):
        """One answer, whole."""
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text, *values):
        """To standard output, without the date: the supervisor keeps a log."""
        print(text % values, flush=True)


print(f"shop {VERSION} starts, database {SETTINGS.get('database')}", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Shop).serve_forever()
