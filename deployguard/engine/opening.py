"""Which engine it is, from what ``--engine`` says."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployguard.errors import UsageError
from deployguard.plan.model import Plan
from deployguard.store.journal import Journal

if TYPE_CHECKING:
    from deployguard.rollout.work import Work

__all__ = ["open_engine"]

_COMMS = {"dask": "tcp", "tls": "tls"}


def open_engine(url: str, plan: Plan, journal: Journal) -> Work:
    """The hosts' transactions of ``plan`` on the engine at ``url``. No host hears of it yet.

    Raises :class:`~deployguard.errors.UsageError`, and
    :class:`~deployguard.errors.EngineUnavailable`.
    """
    try:
        parts = urlsplit(url)
        place = bool(parts.hostname and parts.port)
    except ValueError:
        place = False
    if not place or parts.scheme not in _COMMS or parts.path.strip("/") or "@" in parts.netloc:
        raise UsageError(
            "an engine is named by a URL, dask://HOST:PORT, or tls://HOST:PORT for one with TLS",
            hint="mend --engine; without it this machine deploys",
        )
    from deployguard.store.postgres import PostgresJournal

    if not isinstance(journal, PostgresJournal):
        raise UsageError(
            "--engine needs a journal that the workers share",
            hint="add --journal postgresql://USER@HOST/DATABASE, or set DEPLOYGUARD_JOURNAL",
        )
    from deployguard.engine.remote import Remote, refuse_what_is_done_here

    refuse_what_is_done_here(plan)
    from deployguard.engine.dask import DaskEngine

    return Remote(DaskEngine(url, f"{_COMMS[parts.scheme]}://{parts.netloc}"), journal)
