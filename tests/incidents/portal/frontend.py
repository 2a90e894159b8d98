"""The frontend: a page with its version."""

import http.server
import pathlib
import signal
import sys

version = pathlib.Path("VERSION").read_text().strip()


class Frontend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"<title>portal {version}</title>".encode())

    def log_message(self, *arguments):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(f"frontend {version}", flush=True)
http.server.HTTPServer(("0.0.0.0", 8080), Frontend).serve_forever()
