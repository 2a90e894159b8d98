"""The debug log of connection attempts, through the standard ``logging`` so that it is quiet
until somebody asks for it: an unconfigured structlog would print into ``--json``'s stdout."""

from __future__ import annotations

import logging

import structlog

__all__ = ["log"]

log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    logging.getLogger("deployguard.transport"),
    wrapper_class=structlog.stdlib.BoundLogger,
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["event", "host"]),
    ],
    cache_logger_on_first_use=True,
)
