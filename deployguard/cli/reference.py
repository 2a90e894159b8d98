"""Writes the generated parts of the documentation: ``python -m deployguard.cli.reference``.

``docs/exit-codes.md`` is made whole; ``docs/cli.md`` between its two markers. A test fails when
they are not in step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from deployguard.cli.explain import markdown
from deployguard.cli.main import COMMANDS, cli

__all__ = ["commands", "pages"]

_BEGIN = "<!-- made by `python -m deployguard.cli.reference` from here -->\n"
_END = "<!-- to here -->\n"


def commands() -> str:
    """Each command with its help, as it shows in a terminal."""
    parts: list[str] = []
    top = click.Context(
        cli, info_name="deployguard", help_option_names=["-h", "--help"], terminal_width=90
    )
    for name in COMMANDS:
        command = cli.get_command(top, name)
        assert command is not None
        parts += _shown(command, name, top, "##")
    return "\n".join(parts)


def _shown(command: click.Command, name: str, parent: click.Context, heading: str) -> Iterator[str]:
    """The help of a command, and of the words below it."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=90, max_content_width=90
    )
    path = context.command_path.partition(" ")[2]
    yield f"{heading} {path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            below = command.get_command(context, word)
            assert below is not None
            yield from _shown(below, word, context, heading + "#")


def pages(directory: Path) -> dict[Path, str]:
    """Every generated page with the text it should have."""
    page = directory / "cli.md"
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise SystemExit(f"{page} has lost its markers")
    return {
        directory / "exit-codes.md": markdown(),
        page: before + begin + "\n" + commands() + "\n" + end + after,
    }


def main() -> None:
    """Write the pages below the folder given, ``docs`` by default."""
    for page, text in pages(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")).items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
