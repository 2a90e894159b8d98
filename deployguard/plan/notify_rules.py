"""The rules for channels of notifications that look at more than one key. Each yields findings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from deployguard.plan.document import Finding, Path
from deployguard.plan.message import MOST, problem_of

if TYPE_CHECKING:
    from deployguard.plan.model import Plan
    from deployguard.plan.notify import Channel

__all__ = ["SECRETS", "notify_findings"]

#: The secrets of each kind of channel: each has a key for a variable and mostly one for a file.
SECRETS: dict[str, tuple[str, ...]] = {
    "slack": ("token", "webhook"),
    "pagerduty": ("key",),
    "email": ("password",),
    "sms": ("token",),
    "statuspage": ("token",),
    "webhook": ("secret", "url"),
    "apprise": ("url",),
}

_SECRET = {
    "slack": ("token_env, with channel, or webhook_env", "add token_env: SLACK_TOKEN and channel:"),
    "pagerduty": ("key_env", "add key_env: PAGERDUTY_KEY"),
    "sms": ("token_env", "add token_env: TWILIO_TOKEN"),
    "statuspage": ("token_env", "add token_env: STATUSPAGE_TOKEN"),
    "webhook": ("secret_env", "add secret_env: WEBHOOK_SECRET; unsigned, anybody could send it"),
    "apprise": ("url_env", "add url_env: APPRISE_URL"),
}


def notify_findings(plan: Plan, base: str | None) -> Iterator[Finding]:
    """What is wrong with the notifications of a plan.

    ``base`` is the directory of the plan file; ``None`` leaves out whether local files are there.
    """
    for name, channel in plan.notify.channels.items():
        where: Path = ("notify", "channels", name, channel.kind)
        yield from _secrets(channel, where)
        if channel.slack is not None:
            yield from _slack(channel.slack, where)
        if channel.email is not None:
            yield from _email(channel.email, where)
        if channel.sms is not None and (channel.sms.sender is None) == (
            channel.sms.messaging_service is None
        ):
            yield Finding(
                where,
                "needs exactly one of from and messaging_service",
                "write from: and a number of yours",
                on_key=True,
            )
        if channel.webhook is not None and (channel.webhook.url is None) == (
            channel.webhook.url_env is None
        ):
            hint = "write url: https://…"
            yield Finding(where, "needs exactly one of url and url_env", hint, on_key=True)
    if plan.notify.templates and base is not None:
        for audience, file in plan.notify.templates.items():
            yield from _template(os.path.join(base, file), file, audience)


def _secrets(channel: Channel, where: Path) -> Iterator[Finding]:
    given = 0
    for secret in SECRETS[channel.kind]:
        keys = [f"{secret}_env", f"{secret}_file"]
        named = [key for key in keys if getattr(channel.spec, key, None) is not None]
        given += bool(named) and not (channel.kind == "webhook" and secret == SECRETS["webhook"][1])
        if len(named) > 1:
            yield Finding(
                (*where, named[1]),
                f"{named[0]} and {named[1]} say the same thing twice",
                "remove one",
                on_key=True,
            )
    if not given and channel.kind in _SECRET:
        what, hint = _SECRET[channel.kind]
        yield Finding(where, f"needs {what}", hint, on_key=True)


def _slack(slack: Any, where: Path) -> Iterator[Finding]:
    token = slack.token_env is not None or slack.token_file is not None
    webhook = slack.webhook_env is not None or slack.webhook_file is not None
    if token and webhook:
        yield Finding(
            where, "has a token and a webhook", "keep the token: only it has threads", on_key=True
        )
    elif token and slack.channel is None:
        yield Finding(
            where,
            "a token needs a channel",
            "add channel: and its id, as in C024BE91L",
            on_key=True,
        )
    elif webhook and slack.channel is not None:
        yield Finding(
            (*where, "channel"),
            "a webhook has its channel in Slack",
            "remove channel, or use a token",
            on_key=True,
        )


def _email(email: Any, where: Path) -> Iterator[Finding]:
    password = email.password_env is not None or email.password_file is not None
    if (email.user is None) == password:
        yield Finding(
            where,
            "signs in with half of something",
            "use user with password_env or password_file, or none of them",
            on_key=True,
        )
    if password and email.tls == "none":
        yield Finding(
            (*where, "tls"),
            "a password would be sent for everybody to read",
            "use tls: starttls",
        )


def _template(path: str, file: str, audience: str) -> Iterator[Finding]:
    where: Path = ("notify", "templates", audience)
    try:
        with open(path, encoding="utf-8") as opened:
            text = opened.read(MOST + 1)
    except (OSError, ValueError):
        hint = "paths are relative to the plan file"
        yield Finding(where, f'the template "{file}" cannot be read', hint)
        return
    if len(text) > MOST:
        yield Finding(where, f'the template "{file}" has more than {MOST // 1024} KiB')
        return
    problem = problem_of(text)
    if problem is not None:
        yield Finding(where, f"{file}: {problem[0]}", problem[1])
