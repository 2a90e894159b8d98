"""Extra steps on the hosts, each with its inverse; and migrations, for which that is not enough."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from deployguard.plan.block import Block
from deployguard.plan.quantity import Argv, Duration, Whole

__all__ = ["Dump", "Task"]


class Dump(Block):
    """A dump that is made, and read, before a migration runs."""

    postgresql: str | None = Field(
        None, description="Database or connection string, without a password, for `pg_dump`."
    )
    command: Argv | None = Field(None, description="Or a command that writes a dump to its stdout.")
    opens: Argv | None = Field(
        None,
        description="Reads the dump at `{path}`; `pg_restore --list` for PostgreSQL.",
    )
    user: str | None = Field(None, description="Runs as this user, such as `postgres`.")
    timeout: Duration = Field(1800.0, description="How long it may take.")
    keep: Whole = Field(3, ge=1, description="How many dumps of this task stay on the host.")


def _dump_shorthand(value: object) -> object:
    return {"command": value} if isinstance(value, list) else value


class Task(Block):
    """An extra step on the host, with its inverse."""

    name: str = Field(description="Name in journals and reports; each once.")
    run: Argv = Field(description="Program and arguments.")
    undo: Argv | None = Field(None, description="The inverse; needed unless `undo_less: reason`.")
    undo_less: str | None = Field(None, description="Why no inverse is needed.")
    migration: Literal["reversible", "expand_only", "irreversible"] | None = Field(
        None, description="It changes a schema, once per transaction; see below."
    )
    unchanged: Argv | None = Field(
        None,
        description="irreversible: exit status 0 proves that the schema is still the old one.",
    )
    dump: (
        Annotated[Dump, BeforeValidator(_dump_shorthand, json_schema_input_type=Argv | Dump)] | None
    ) = Field(None, description="A dump before the migration.")
    at: Literal["before_stop", "before_start", "after_start"] = Field(
        "before_start", description="When it runs."
    )
    once: bool = Field(False, description="Only on the first host that it applies to.")
    component: str | None = Field(None, description="Runs in this component's new tree.")
    hosts: tuple[str, ...] = Field((), description="Hosts or groups it runs on; all when empty.")
    env: dict[str, str] = Field(default_factory=dict, description="Added environment.")
    timeout: Duration = Field(300.0, description="How long it may take.")

    @property
    def only_once(self) -> bool:
        """Whether it runs on one host of the transaction; a migration always does."""
        return self.once or self.migration is not None
