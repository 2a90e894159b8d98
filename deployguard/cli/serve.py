"""``deployguard serve``: history, incidents and metrics as pages on localhost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common

__all__ = ["command"]

#: Where the token may stand instead of in a file.
VARIABLE = "DEPLOYGUARD_SERVE_TOKEN"
_SHORTEST = 16


@click.command("serve")
@click.option(
    "-p",
    "--port",
    type=click.IntRange(min=0, max=65535),
    default=8377,
    show_default=True,
    help="The port on 127.0.0.1; 0 takes one that is free.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Who gives the token in FILE, or in {VARIABLE}, may move incidents on.",
)
@common
def command(console: Console, port: int, token_file: Path | None) -> int:
    """Show history, incidents and metrics in a browser, on localhost.

    On 127.0.0.1 only, for this user only, and read-only unless it is started with a token. From
    another machine: ssh -L 8377:127.0.0.1:8377 HOST. Needs: pip install 'deployguard[serve]'
    """
    from deployguard.errors import UsageError

    token = _token(token_file)
    try:
        import uvicorn

        from deployguard.web.app import application
    except ImportError as error:
        raise UsageError(
            f"serve needs {error.name}", hint="pip install 'deployguard[serve]'"
        ) from None
    from deployguard.report.incidents import book_of
    from deployguard.report.redaction import Redaction
    from deployguard.rollout.owner import owner_name
    from deployguard.store.opening import open_journal
    from deployguard.web.listening import listen

    journal = open_journal()
    app = application(journal, book_of(journal, Redaction(None), owner_name()), token=token)
    try:
        listener = listen(port)
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be had: {error.strerror}", hint="--port 0 takes one that is free"
        ) from None
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    console.emit("serving", {"url": url, "token": token is not None})
    console.say(f"{url} {'with a token' if token else 'read-only'}; Ctrl-C ends it")
    # The peer's address must be the connection's, whatever a header says.
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, proxy_headers=False, server_header=False
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    return 0


def _token(file: Path | None) -> str | None:
    """The token; it is in no command line, and nobody else may read its file."""
    from deployguard.errors import UsageError

    if file is None:
        text, where = os.environ.get(VARIABLE), VARIABLE
    else:
        text, where = file.read_text(encoding="utf-8", errors="surrogateescape"), str(file)
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise UsageError(f"others may read {file}", hint=f"chmod 600 {file}")
    if text is None:
        return None
    if len(text.strip()) < _SHORTEST:
        raise UsageError(
            f"the token in {where} has fewer than {_SHORTEST} letters",
            hint="openssl rand -hex 32 makes one",
        )
    return text.strip()
