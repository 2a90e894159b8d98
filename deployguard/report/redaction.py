"""What one run knows to be secret, and its outcome and events without that.

Text from hosts is cut into lines and cells by whoever shows it, and a secret of several lines is
not found in its pieces. So whole events and whole outcomes are redacted before anybody is told.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from deployguard.evidence.redact import Redactor
from deployguard.notify.settings import settings_of
from deployguard.rollout.outcome import Event, Listener, Outcome
from deployguard.secret import Secret
from deployguard.store.journal import Journal

if TYPE_CHECKING:
    from deployguard.plan.model import Plan

__all__ = ["CleanJournal", "Redaction", "secrets_of"]

Record = TypeVar("Record")


def secrets_of(plan: Plan) -> list[Secret]:
    """Every secret that the plan names and the environment has."""
    from deployguard.plan.credentials import secrets_of_checks  # it knows pydantic

    names = list(plan.rescue.redact)
    if plan.rescue.incident.github is not None:
        names.append(plan.rescue.incident.github.token_env)
    if plan.snapshots is not None and plan.snapshots.key_env is not None:
        names.append(plan.snapshots.key_env)
    for guard in plan.guards:
        if guard.ci is not None or guard.approval is not None:
            names.append(guard.spec.token_env)
    found = (Secret.from_environment(name) for name in names)
    return [
        *(secret for secret in found if secret is not None),
        *secrets_of_checks(plan),
        *settings_of(plan).secrets(),
    ]


class Redaction:
    """The secrets of one plan, under one key: equal secrets of a run show as equal everywhere.

    Without a plan there is only what looks like a secret.
    """

    def __init__(self, plan: Plan | None) -> None:
        self._secrets = secrets_of(plan) if plan is not None else []
        self._key = os.urandom(16)
        self._redactor = self.redactor()

    def redactor(self) -> Redactor:
        """A redactor that counts for itself."""
        return Redactor(self._secrets, key=self._key)

    def outcome(self, outcome: Outcome) -> Outcome:
        """The outcome with every text redacted; its numbers and its id are as they were."""
        clean: Outcome = self._record(outcome)
        return dataclasses.replace(clean, transaction=outcome.transaction)

    def listener(self, listen: Listener | None) -> Listener | None:
        """A listener that hears redacted events."""
        if listen is None:
            return None
        heard = listen

        def hear(event: Event) -> None:
            heard(self._record(event))

        return hear

    def data(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data with every text redacted."""
        clean: dict[str, Any] = self._value(dict(data))
        return clean

    def value(self, value: Any) -> Any:
        """A text, or data with texts in it, redacted."""
        return self._value(value)

    def _record(self, record: Record) -> Record:
        fields = dataclasses.fields(record)  # type: ignore[arg-type]  # only dataclasses come here
        values = {field.name: self._value(getattr(record, field.name)) for field in fields}
        return type(record)(**values)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redactor.text(value)
        if isinstance(value, dict):
            return {self._value(key): self._value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._value(item) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._record(value)
        return value


class CleanJournal:
    """The journal for those who end a transaction with what they were told, and redact nothing."""

    def __init__(self, journal: Journal, redaction: Redaction) -> None:
        self._journal = journal
        self._redaction = redaction
        self.decide = journal.decide
        self.decision = journal.decision
        self.get = journal.get
        self.unended = journal.unended
        self.debts = journal.debts
        self.settled = journal.settled

    def override(self, transaction: str, overrides: Iterable[Mapping[str, Any]]) -> None:
        """Record what was gone over, redacted."""
        self._journal.override(transaction, [self._redaction.data(each) for each in overrides])

    def end(self, transaction: str, outcome: Mapping[str, Any]) -> None:
        """Record how it ended, redacted."""
        self._journal.end(
            transaction, {**self._redaction.data(outcome), "transaction": transaction}
        )
