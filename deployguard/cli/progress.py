"""Shows a run while it runs: redrawn on a terminal, line by line anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from deployguard.cli.logs import log_event

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deployguard.cli.board import Board
    from deployguard.cli.console import Console
    from deployguard.rollout.outcome import Event, Listener

__all__ = ["event_text", "showing"]

_MARKS = {"started": "…", "progress": "…", "done": "✓", "failed": "✗"}
_STYLES = {"started": "cyan", "progress": "cyan", "done": "green", "failed": "bold red"}
#: Rows that are not the table's: its head, the headline, the shell's prompt.
_FRAME_ROWS = 6


@contextmanager
def showing(console: Console, title: str, hosts: list[str]) -> Iterator[Listener]:
    """A listener that shows every event, and passes it to ``--json`` and to the log."""

    def listener(show: Callable[[Event], None]) -> Listener:
        def listen(event: Event) -> None:
            log_event(event)
            console.emit("event", dict(event.__dict__))
            show(event)

        return listen

    if console.live:
        with _live(console, title, hosts) as show:
            yield listener(show)
    elif console.workflow is not None:
        with console.workflow.group(title):
            yield listener(lambda event: _line(console, event))
    else:
        console.say(title)
        yield listener(lambda event: _line(console, event))


def _line(console: Console, event: Event) -> None:
    """One line an event; steps within a phase are for the live display and the log."""
    if event.status == "progress":
        return
    for line in event_text(event).splitlines():
        console.say(line, fg="red" if event.status == "failed" else None)


def event_text(event: Event) -> str:
    """An event as it shows where nothing is redrawn."""
    at = time.strftime("%H:%M:%S", time.localtime(event.at))
    host = f"{event.host} " if event.host else ""
    text = f": {event.message}" if event.message else ""
    status = "" if event.status == "note" else f" {event.status}"
    return f"{at} {host}{event.phase}{status}{text}"


@contextmanager
def _live(console: Console, title: str, hosts: list[str]) -> Iterator[Callable[[Event], None]]:
    # Imported here: rich takes 50 ms, which only a terminal should pay.
    import threading

    from rich.console import Console as Terminal
    from rich.live import Live

    from deployguard.cli.board import Board

    terminal = Terminal(stderr=True, no_color=console.color is False, highlight=False)
    board = Board(hosts)
    began = time.monotonic()
    lock = threading.Lock()

    def draw() -> RenderableType:
        with lock:
            height = max(terminal.size.height - _FRAME_ROWS, 4)
            return _table(console, board, f"{title}  {time.monotonic() - began:.0f} s", height)

    def show(event: Event) -> None:
        with lock:
            board(event)

    with Live(
        get_renderable=draw, console=terminal, refresh_per_second=8, transient=False
    ) as display:

        @contextmanager
        def paused() -> Iterator[None]:
            display.stop()
            try:
                yield
            finally:
                display.start()

        console.paused = paused
        try:
            yield show
        finally:
            console.paused = nullcontext


def _table(console: Console, board: Board, title: str, height: int) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows, left = board.rows(height)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("host", no_wrap=True, max_width=24)
    for phase in board.phases:
        table.add_column(phase, justify="center", no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in rows:
        marks = [
            Text(_MARKS.get(status, " "), style=_STYLES.get(status, ""))
            for status in (row.phases.get(phase, "") for phase in board.phases)
        ]
        message = console.redact(row.message.partition("\n")[0])
        table.add_row(Text(row.host), *marks, Text(message, style="red" if row.failed else "dim"))
    parts: list[RenderableType] = [Text(title, style="bold"), Text(board.headline(), style="dim")]
    parts.append(table)
    if left:
        parts.append(Text(left, style="dim"))
    if board.message:
        parts.append(Text(console.redact(board.message)))
    return Group(*parts)
