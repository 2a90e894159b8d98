"""Prometheus of a test's own, which scrapes one number that the test sets."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.servers.program import folder, free_port, program, running


class Exporter:
    """A target: ``shop_errors`` is :attr:`value`."""

    def __init__(self) -> None:
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = f"shop_errors {exporter.value}\n".encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.value = 10.0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self.server.shutdown()
        self.server.server_close()


@dataclass(frozen=True)
class Metrics:
    """Prometheus at ``url``, and what it scrapes five times a second."""

    url: str
    exporter: Exporter


@contextlib.contextmanager
def a_prometheus() -> Iterator[Metrics]:
    """Prometheus with one target."""
    daemon = program("prometheus", "prometheus")
    exporter = Exporter()
    try:
        with folder("prometheus") as base:
            (base / "prometheus.yml").write_text(
                "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
                "scrape_configs:\n"
                "  - job_name: shop\n"
                f"    static_configs: [{{targets: ['127.0.0.1:{exporter.port}']}}]\n"
            )
            port = free_port()
            argv = [
                daemon, f"--config.file={base}/prometheus.yml", f"--storage.tsdb.path={base}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ]  # fmt: skip
            with running(argv, "Server is ready", base):
                yield Metrics(f"http://127.0.0.1:{port}", exporter)
    finally:
        exporter.close()


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Metrics]:
    """One for the tests of a module."""
    with a_prometheus() as metrics:
        yield metrics
