"""Which journal it is: a file of this user's, or a database that several controllers share."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from deployguard.errors import UsageError
from deployguard.store.journal import Journal, SqliteJournal

__all__ = ["VARIABLE", "open_journal"]

VARIABLE = "DEPLOYGUARD_JOURNAL"

_SCHEMES = ("postgresql", "postgres")


def open_journal(url: str | None = None) -> Journal:
    """The journal at ``url``, at ``$DEPLOYGUARD_JOURNAL``, or the file of this user.

    Raises :class:`~deployguard.errors.UsageError` for what is no journal's URL, and
    :class:`~deployguard.errors.JournalUnavailable`.
    """
    url = url or os.environ.get(VARIABLE)
    if not url:
        return SqliteJournal()
    if urlsplit(url).scheme not in _SCHEMES:
        raise UsageError(
            "the journal is named by a URL, postgresql://USER@HOST/DATABASE",
            hint=f"mend --journal, or {VARIABLE}; without either it is a file of yours",
        )
    from deployguard.store.postgres import PostgresJournal

    return PostgresJournal(url)
