"""The log: key-value lines on stderr with ``-v``, JSON Lines in ``--log-file``, both redacted.

It is for finding out what deployguard itself did. What a deploy did is in its timeline.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from deployguard.cli.console import Console
    from deployguard.rollout.outcome import Event

__all__ = ["configure", "log_event"]


def configure(console: Console) -> None:
    """Set the log up as the options ask; without any nothing is logged, and nothing imported."""
    if not console.verbosity and not console.log_file:
        return
    import structlog

    def redact(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # The console's redactor learns more secrets once the plan is loaded.
        clean: dict[str, Any] = console.redactor.data(dict(entry))
        return clean

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]

    def formatter(renderer: Any) -> logging.Formatter:
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                renderer,
            ],
        )

    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handlers: list[logging.Handler] = []
    if console.verbosity:
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(
            formatter(
                structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"])
            )
        )
        handlers.append(handler)
    if console.log_file:
        handler = logging.FileHandler(console.log_file, encoding="utf-8")
        handler.setFormatter(formatter(structlog.processors.JSONRenderer(default=str)))
        handlers.append(handler)
    levels = {
        "deployguard": logging.DEBUG,
        "paramiko": logging.DEBUG if console.verbosity > 1 else logging.WARNING,
    }
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = handlers
        logger.propagate = False

    def undo() -> None:
        # A program that runs a command line inside itself keeps its own logging.
        for name in levels:
            logger = logging.getLogger(name)
            logger.setLevel(logging.NOTSET)
            logger.handlers = []
            logger.propagate = True
        for handler in handlers:
            handler.close()
        structlog.reset_defaults()

    console.at_close(undo)


def log_event(event: Event) -> None:
    """An event of a transaction as a line of the log."""
    logger = logging.getLogger("deployguard.event")
    if logger.isEnabledFor(logging.DEBUG):
        import structlog

        structlog.get_logger("deployguard.event").debug(
            event.message or event.status,
            host=event.host,
            phase=event.phase,
            status=event.status,
            **({"detail": event.detail} if event.detail else {}),
        )
