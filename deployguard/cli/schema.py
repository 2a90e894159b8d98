"""``deployguard schema``: the JSON Schema of the plan file, for editors."""

from __future__ import annotations

import json

import click

from deployguard.cli.console import Console
from deployguard.cli.options import common

__all__ = ["command"]


@click.command("schema")
@common
def command(console: Console) -> int:
    """Print the JSON Schema of the plan file.

    An editor with the YAML language server completes and checks a plan that begins with
    `# yaml-language-server: $schema=deployguard.schema.json`.
    """
    from deployguard.plan.schema import json_schema

    console.document(json.dumps(json_schema(), indent=2))
    return 0
