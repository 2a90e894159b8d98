"""The block `notify`: who is told of incidents and deploys, and over which channels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from deployguard.plan.block import Block, OneOf
from deployguard.plan.quantity import ComponentName, Duration, Whole

__all__ = [
    "AppriseChannel",
    "Audience",
    "Channel",
    "EmailChannel",
    "Notify",
    "PagerDutyChannel",
    "SlackChannel",
    "SmsChannel",
    "StatuspageChannel",
    "WebhookChannel",
]

Audience = Literal["team", "management", "customers", "partners"]

_URL = r"^https?://"
_ADDRESS = r"^[^\s@<>,]+@[^\s@<>,]+$"
_PHONE = r"^\+[1-9][0-9]{6,14}$"

Address = Annotated[str, Field(pattern=_ADDRESS)]
Phone = Annotated[str, Field(pattern=_PHONE)]


class SlackChannel(Block):
    """Slack: with a bot's token in threads, or through an incoming webhook without."""

    token_env: str | None = Field(None, description="Environment variable with the bot's token.")
    token_file: str | None = Field(None, description="File with it, relative to the plan.")
    channel: str | None = Field(
        None, pattern=r"^\S+$", description="With a token: the channel's id, as in C024BE91L."
    )
    webhook_env: str | None = Field(
        None, description="Environment variable with an incoming webhook's URL."
    )
    webhook_file: str | None = Field(None, description="File with it, relative to the plan.")
    base_url: str = Field("https://slack.com/api", pattern=_URL, description="Slack's API.")


class PagerDutyChannel(Block):
    """PagerDuty's Events API v2: an alert that is triggered, acknowledged and resolved."""

    key_env: str | None = Field(None, description="Environment variable with the integration key.")
    key_file: str | None = Field(None, description="File with it, relative to the plan.")
    base_url: str = Field(
        "https://events.pagerduty.com",
        pattern=_URL,
        description="PagerDuty; https://events.eu.pagerduty.com in Europe.",
    )


class EmailChannel(Block):
    """Mail over SMTP; the messages of an incident are one thread."""

    host: str = Field(pattern=r"^[^/\s]+$", description="The mail server.")
    port: Whole | None = Field(
        None, ge=1, le=65535, description="587; 465 with `tls: implicit`, 25 with `tls: none`."
    )
    tls: Literal["starttls", "implicit", "none"] = Field(
        "starttls", description="How it is encrypted; a server without it is not used."
    )
    ca_file: str | None = Field(
        None, description="Authority of its certificate, relative to the plan; the system's."
    )
    user: str | None = Field(None, description="Who signs in.")
    password_env: str | None = Field(None, description="Environment variable with the password.")
    password_file: str | None = Field(None, description="File with it, relative to the plan.")
    sender: Address = Field(alias="from", description="The address it comes from.")
    to: tuple[Address, ...] = Field(min_length=1, description="The addresses it goes to.")


class SmsChannel(Block):
    """Text messages through Twilio."""

    account: str = Field(pattern=r"^AC[0-9a-fA-F]{32}$", description="The account's SID.")
    api_key: str | None = Field(
        None, pattern=r"^SK[0-9a-fA-F]{32}$", description="SID of an API key, if it signs in."
    )
    token_env: str | None = Field(
        None, description="Environment variable with the auth token, or the API key's secret."
    )
    token_file: str | None = Field(None, description="File with it, relative to the plan.")
    sender: str | None = Field(
        None, alias="from", pattern=r"^\S+$", description="A number of yours, as in +4915112345678."
    )
    messaging_service: str | None = Field(
        None, pattern=r"^MG[0-9a-fA-F]{32}$", description="SID of a messaging service, instead."
    )
    to: tuple[Phone, ...] = Field(min_length=1, description="Numbers, as in +4915112345678.")
    base_url: str = Field("https://api.twilio.com", pattern=_URL, description="Twilio's API.")


class StatuspageChannel(Block):
    """An incident on a page of Atlassian Statuspage."""

    page: str = Field(pattern=r"^\S+$", description="The page's id.")
    token_env: str | None = Field(None, description="Environment variable with the API key.")
    token_file: str | None = Field(None, description="File with it, relative to the plan.")
    components: tuple[str, ...] = Field((), description="Ids of the components that are hit.")
    subscribers: bool = Field(True, description="Whether Statuspage tells its subscribers.")
    base_url: str = Field("https://api.statuspage.io", pattern=_URL, description="Its API.")


class WebhookChannel(Block):
    """A signed POST to a program of yours, by the Standard Webhooks."""

    url: str | None = Field(None, pattern=_URL, description="Where to.")
    url_env: str | None = Field(None, description="Environment variable with it, if it is secret.")
    secret_env: str | None = Field(None, description="Environment variable with the shared secret.")
    secret_file: str | None = Field(None, description="File with it, relative to the plan.")


class AppriseChannel(Block):
    """Any service that Apprise knows; needs the extra `apprise`."""

    url_env: str | None = Field(None, description="Environment variable with Apprise's URLs.")
    url_file: str | None = Field(None, description="File with them, relative to the plan.")


class Channel(OneOf):
    """One way to tell somebody, and of what."""

    model_config = ConfigDict(json_schema_extra=None)

    KINDS: ClassVar[tuple[str, ...]] = (
        "slack",
        "pagerduty",
        "email",
        "sms",
        "statuspage",
        "webhook",
        "apprise",
    )
    slack: SlackChannel | None = Field(None, description="Slack.")
    pagerduty: PagerDutyChannel | None = Field(None, description="PagerDuty.")
    email: EmailChannel | None = Field(None, description="Mail.")
    sms: SmsChannel | None = Field(None, description="Text messages.")
    statuspage: StatuspageChannel | None = Field(None, description="A status page.")
    webhook: WebhookChannel | None = Field(None, description="A program of yours.")
    apprise: AppriseChannel | None = Field(None, description="Whatever Apprise knows.")
    at_least: Literal["critical", "high", "medium", "low"] | None = Field(
        None,
        description="The least severity it is told of; `high` for pagerduty, sms and statuspage, "
        "else `low`.",
    )
    escalations: Whole = Field(
        0, ge=0, description="How often an incident is escalated before it is told."
    )
    audience: Audience | None = Field(
        None, description="For whom; `customers` for statuspage, else `team`."
    )
    deploys: bool = Field(
        False, description="Told how each deploy ends; of PagerDuty, as a change event."
    )
    deadline: Duration = Field(
        20.0, ge=1, description="How long a command may try before it leaves it to the next."
    )
    expires: Duration = Field(86400.0, ge=1, description="After how long it is not sent any more.")


class Notify(Block):
    """Who is told of incidents and deploys."""

    product: str | None = Field(
        None, description="What customers call it; the plan's name when left out."
    )
    templates: dict[Audience, str] = Field(
        default_factory=dict,
        description="A file with other words for an audience, relative to the plan.",
    )
    channels: dict[ComponentName, Channel] = Field(
        default_factory=dict, description="The channels, by a name of yours."
    )
