"""What a worker must have to deploy, and what of the journal's URL it is told."""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, urlencode, urlsplit

from deployguard import __version__
from deployguard.errors import DeployguardError
from deployguard.store.opening import VARIABLE
from deployguard.store.postgres import PostgresJournal

__all__ = ["check_worker", "without_password"]

_PATIENCE = 5.0
_SECRETS = ("password", "sslpassword")


def check_worker(version: str, url: str, transaction: str) -> str:
    """What is wrong with the worker that runs this; empty where nothing is."""
    if version != __version__:
        return f"it has deployguard {__version__}, and this is {version}"
    try:
        journal = PostgresJournal(os.environ.get(VARIABLE) or url, patience=_PATIENCE)
        try:
            if journal.mailbox().run(transaction) is None:
                return f"its {VARIABLE} is another journal than the controller's"
        finally:
            journal.close()
    except DeployguardError as error:
        return f"{error.message}; {error.hint}" if error.hint else error.message
    return ""


def without_password(url: str) -> str:
    """The URL as a worker is told it: engines show what they carry."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    query = urlencode([(k, v) for k, v in parse_qsl(parts.query) if k not in _SECRETS])
    # Not put together by urllib: it would drop the slashes where no server is named.
    bare = f"{parts.scheme}://{user.partition(':')[0]}{at}{place}{parts.path}"
    return f"{bare}?{query}" if query else bare
