"""The backend: a pool of connections that it wants to have, and /health, which says what it has."""

import http.server
import json
import pathlib
import signal
import sys
import threading
import time

import psycopg2

settings = json.loads(pathlib.Path("settings.json").read_text())
password = pathlib.Path("/etc/portal/database.password").read_text().strip()
wanted = settings["pool"]["min"]
pool = []
problem = ""


def connect():
    return psycopg2.connect(
        host="db1.example.com",
        user="portal",
        dbname="portal",
        password=password,
        application_name=f"portal {settings['version']}",
        connect_timeout=3,
    )


def fill():
    """Open what is missing, and go on trying: whatever comes free is taken."""
    global problem
    while True:
        try:
            while len(pool) < wanted:
                pool.append(connect())
            problem = ""
        except psycopg2.OperationalError as error:
            said = str(error).strip().splitlines()[-1]
            if said != problem:
                print(f"pool: {len(pool)} of {wanted} connections: {said}", flush=True)
            problem = said
        time.sleep(0.2)


class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, database = "healthy", "connected"
        if len(pool) < wanted:
            status, database = "unhealthy", problem or "connecting"
        else:
            with pool[0].cursor() as cursor:
                cursor.execute("SELECT count(*) FROM orders")
                database = f"{cursor.fetchone()[0]} orders"
            pool[0].rollback()
        body = {"status": status, "version": settings["version"], "database": database}
        self.send_response(200 if status == "healthy" else 503)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(f"backend {settings['version']}: a pool of {wanted}", flush=True)
threading.Thread(target=fill, daemon=True).start()
http.server.HTTPServer(("0.0.0.0", 8000), Backend).serve_forever()
