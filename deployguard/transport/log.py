"""The debug log of connection attempts, through the standard ``logging`` so that it is quiet
until somebody asks for it: an unconfigured structlog would print into ``--json``'s stdout."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

__all__ = ["debug"]

_LOGGER = logging.getLogger("deployguard.transport")


def debug(event: str, **fields: object) -> None:
    """Log an event, if anybody listens; structlog takes 40 ms, which nobody else should pay."""
    if _LOGGER.isEnabledFor(logging.DEBUG):
        _structured().debug(event, **fields)


@cache
def _structured() -> Any:
    import structlog

    return structlog.wrap_logger(
        _LOGGER,
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event", "host"]),
        ],
        cache_logger_on_first_use=True,
    )
