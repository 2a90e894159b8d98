"""``deployguard report``: what a transaction was, as one page to look at."""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.parse import quote

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common

__all__ = ["command"]


@click.command("report")
@click.argument("transaction", metavar="[TXN]", required=False)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the page goes instead of TXN.html here; - is stdout.",
)
@common
def command(console: Console, transaction: str | None, output: Path | None) -> int:
    """Draw a transaction as one page to look at.

    When what happened on which host, the first failing signal, the health of every check over
    time, what changed, the proof of the restore, and links to the evidence. TXN is its id or the
    beginning of one; the newest when left out. The page needs no network and runs no script.
    """
    from deployguard import api
    from deployguard.errors import UsageError

    if transaction is None:
        newest = api.history(limit=1)
        if not newest:
            raise UsageError("no transaction was run from this machine yet")
        transaction = newest[0]["id"]
    row = api.transaction(transaction)
    if row["outcome"] is None:
        raise UsageError(
            f"{row['id']} has no end here: it is at work, or was killed",
            hint=f"`deployguard history {row['id']}` shows what is known",
        )
    path = output if output is not None else Path(f"{row['id']}.html")
    to_stdout = str(path) == "-"
    base = None if to_stdout else _base(row["outcome"].get("forensics"), path)
    from deployguard.report.page.transaction import report

    # Once more before it is laid out: rules of today may know more than those of then.
    clean = console.redactor.data(row)
    clean["outcome"]["transaction"] = row["id"]
    page = report(clean, time.time(), base)
    if to_stdout:
        console.document(page)
        return 0
    from deployguard.report.postmortem.files import write

    try:
        write(path, page)
    except OSError as error:
        raise click.ClickException(f"the page cannot be written: {error}") from None
    console.say(f"{path}")
    console.emit("page", {"path": str(path)})
    return 0


def _base(folder: str | None, page: Path) -> str | None:
    """How links from the page to the folder begin, so that both can be moved together."""
    if not folder:
        return None
    return quote(os.path.relpath(Path(folder).resolve(), page.resolve().parent))
