"""What a plan says about notifications, as plain data that can be kept without the plan.

It holds the names of variables and files with secrets, never a secret.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from deployguard.delivery import Undelivered
from deployguard.incidents.severity import level_named
from deployguard.secret import Secret
from deployguard.store.work import Store, Work

if TYPE_CHECKING:
    from deployguard.plan.model import Plan

__all__ = ["ChannelSettings", "Settings", "known", "parts_of", "remember", "settings_of"]

#: Parts of a URL that are shorter are words rather than secrets, in characters.
_LONG = 12

#: What is not here will not be here in a second: seconds until somebody else may have it.
_ELSEWHERE = 60.0

_URGENT = ("pagerduty", "sms", "statuspage")
_FILES = ("token_file", "webhook_file", "key_file", "password_file", "secret_file", "url_file")
_SECRETS = ("token", "webhook", "key", "password", "secret", "url")


@dataclass(frozen=True)
class ChannelSettings:
    """One channel. ``options`` are those of its kind, as the plan has them, paths made absolute;
    ``at_least`` is a level, 1 the worst; ``deadline`` and ``expires`` are seconds."""

    name: str
    kind: str
    options: dict[str, Any]
    at_least: int
    escalations: int
    audience: str
    deploys: bool
    deadline: float
    expires: float

    @property
    def recipients(self) -> tuple[str, ...]:
        """Those who are sent a message each; one nameless where there is one message for all."""
        return tuple(self.options["to"]) if self.kind in ("sms", "email") else ("",)

    def secret(self, name: str) -> Secret | None:
        """A secret of the channel, ``None`` where its settings name none.

        Raises :class:`Undelivered` when it is not there: another machine, or another day, may have
        it.
        """
        variable, file = self.options.get(f"{name}_env"), self.options.get(f"{name}_file")
        if variable:
            found = Secret.from_environment(variable)
            if found is None:
                raise Undelivered(f"${variable} is not set here", retry_after=_ELSEWHERE)
            return Secret(found.reveal().strip(), origin=variable)
        if file:
            try:
                with open(file, encoding="utf-8") as opened:
                    text = opened.read(64 * 1024).strip()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "it is no text"
                raise Undelivered(
                    f"{file} cannot be read: {reason}", retry_after=_ELSEWHERE
                ) from None
            if not text:
                raise Undelivered(f"{file} is empty", retry_after=_ELSEWHERE)
            return Secret(text, origin=file)
        return None

    def secrets(self) -> list[Secret]:
        """All of them. Raises :class:`Undelivered` where one is not there."""
        return [secret for name in _SECRETS if (secret := self.secret(name)) is not None]

    def demand(self, name: str) -> Secret:
        """The same for a secret that there has to be."""
        found = self.secret(name)
        if found is None:
            raise Undelivered(f"the settings of {self.name} name no {name}")
        return found


@dataclass(frozen=True)
class Settings:
    """The notifications of one service in one environment; ``templates`` are texts by audience,
    ``redact`` names variables whose values are shown to nobody."""

    service: str
    environment: str
    product: str
    templates: dict[str, str] = field(default_factory=dict)
    channels: tuple[ChannelSettings, ...] = ()
    redact: tuple[str, ...] = ()

    def secrets(self) -> list[Secret]:
        """Every secret that is named here and is there."""
        found = [Secret.from_environment(name) for name in self.redact]
        for channel in self.channels:
            for name in _SECRETS:
                with suppress(Undelivered):
                    found.append(channel.secret(name))
        whole = [secret for secret in found if secret is not None]
        return whole + [part for secret in whole for part in parts_of(secret)]

    def channel(self, name: str) -> ChannelSettings | None:
        """The channel of that name."""
        return next((channel for channel in self.channels if channel.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Settings:
        """What :meth:`as_dict` was made from."""
        channels = tuple(ChannelSettings(**channel) for channel in data["channels"])
        return cls(**{**data, "channels": channels, "redact": tuple(data["redact"])})


def parts_of(secret: Secret) -> list[Secret]:
    """What is secret by itself in a secret: each of several, and in a URL what opens it."""
    words = secret.reveal().split()
    parts = words if len(words) > 1 else []
    for word in words:
        if "://" in word:
            with suppress(ValueError):
                url = urlsplit(word)
                inside = [url.password or "", *url.path.split("/"), url.query]
                parts += [unquote(part) for part in inside if len(part) >= _LONG]
    return [Secret(part, secret.origin) for part in parts]


def settings_of(plan: Plan) -> Settings:
    """What a plan says; templates and files with secrets are found beside it."""
    base = os.path.dirname(os.path.abspath(plan.source)) if plan.source else os.getcwd()
    channels = []
    for name, channel in plan.notify.channels.items():
        options = channel.spec.model_dump(by_alias=True, exclude_none=True, mode="json")
        for key in (*_FILES, "ca_file"):
            if key in options:
                options[key] = os.path.join(base, options[key])
        urgent = channel.kind in _URGENT
        audience = "customers" if channel.kind == "statuspage" else "team"
        channels.append(
            ChannelSettings(
                name=name,
                kind=channel.kind,
                options=options,
                at_least=level_named(channel.at_least or ("high" if urgent else "low")),
                escalations=channel.escalations,
                audience=channel.audience or audience,
                deploys=channel.deploys,
                deadline=channel.deadline,
                expires=channel.expires,
            )
        )
    templates = {
        audience: _read(os.path.join(base, file))
        for audience, file in plan.notify.templates.items()
    }
    return Settings(
        service=plan.name,
        environment=plan.environment,
        product=plan.notify.product or plan.name,
        templates={audience: text for audience, text in templates.items() if text},
        channels=tuple(channels),
        redact=plan.rescue.redact,
    )


def _read(path: str) -> str:
    """A template of the plan; the one that is shipped stands in where it is gone by now."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):
        return ""


def remember(store: Store, plan: Plan) -> Settings:
    """Keep what a plan says for those who have no plan at hand."""
    settings = settings_of(plan)
    where = {"service": plan.name, "environment": plan.environment}
    text = json.dumps(settings.as_dict(), sort_keys=True)
    rows = store.read(
        "SELECT settings FROM @notify_plans "
        "WHERE service = :service AND environment = :environment",
        where,
    )
    if (rows and rows[0]["settings"] == text) or (not rows and not settings.channels):
        return settings

    def within(work: Work) -> None:
        work.do(
            "INSERT INTO @notify_plans (service, environment, settings, saved_at) "
            "VALUES (:service, :environment, :settings, :now) "
            "ON CONFLICT (service, environment) DO UPDATE SET "
            "settings = excluded.settings, saved_at = excluded.saved_at",
            {**where, "settings": text, "now": time.time()},
        )

    store.transact(within)
    return settings


def known(work: Work | Store, service: str, environment: str) -> Settings | None:
    """What the last plan of a service and environment said; ``None`` where none was seen."""
    statement = (
        "SELECT settings FROM @notify_plans WHERE service = :service AND environment = :environment"
    )
    values = {"service": service, "environment": environment}
    rows = work.rows(statement, values) if hasattr(work, "rows") else work.read(statement, values)
    return Settings.from_dict(json.loads(rows[0]["settings"])) if rows else None
