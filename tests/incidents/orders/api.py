"""Takes orders. v1.5.0 quotes a price in a session, and gives none of its sessions back."""

import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

VERSION = Path("/app/VERSION").read_text().strip()
SESSIONS = 25 if VERSION == "v1.5.0" else None
STATE = {"maintenance": "disabled", "payments": "closed"}
COUNT = {"requests": 0, "errors": 0, "sessions": 0}
LOCK = threading.Lock()


def log(level, text):
    """One line on stdout."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(f"{now} {level} {text}", flush=True)


def quote(number):
    """The price of an order."""
    if SESSIONS is not None and COUNT["sessions"] >= SESSIONS:
        raise RuntimeError(f"no quote session is free, {SESSIONS} of {SESSIONS} are in use")
    COUNT["sessions"] += SESSIONS is not None
    return 10 + number % 7


class Handler(BaseHTTPRequestHandler):
    """Orders, health, metrics, and what an administrator may switch."""

    def do_GET(self):
        if self.path == "/health":
            full = SESSIONS is not None and COUNT["sessions"] >= SESSIONS
            status = "no quote sessions" if full else "healthy"
            self.answer(503 if full else 200, {"status": status, "version": VERSION, **STATE})
        elif self.path == "/metrics":
            text = "".join(f"http_{name}_total {COUNT[name]}\n" for name in ("requests", "errors"))
            self.answer(200, text)
        else:
            self.answer(404, {})

    def do_POST(self):
        url = urlsplit(self.path)
        words = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/admin/maintenance-mode":
            STATE["maintenance"] = words["mode"]
            log("INFO", f"maintenance mode {words['mode']}")
            self.answer(200, STATE)
        elif url.path == "/admin/circuit-breaker":
            STATE["payments"] = words["payments"]
            log("INFO", f"circuit breaker of payments {words['payments']}")
            self.answer(200, STATE)
        elif STATE["maintenance"] == "enabled":
            self.answer(503, {"message": "Incident response in progress"})
        else:
            self.order()

    def order(self):
        with LOCK:
            COUNT["requests"] += 1
            number = COUNT["requests"]
            try:
                price = quote(number)
            except RuntimeError as error:
                COUNT["errors"] += 1
                log("ERROR", f"order {number} failed: {error}")
                self.answer(500, {"message": "try again"})
                return
            with open("/data/orders.log", "a") as file:
                file.write(f"{int(time.time())} {number} {price}\n")
        self.answer(200, {"order": number, "price": price})

    def answer(self, code, body):
        plain = isinstance(body, str)
        data = (body if plain else json.dumps(body)).encode()
        self.send_response(code)
        kind = "text/plain; version=0.0.4" if plain else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
log("INFO", f"orders {VERSION} is up")
ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
