"""PagerDuty, Twilio, Statuspage and webhooks: what each has that the others have not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployguard.delivery import Rejected, Undelivered
from deployguard.notify.webhook import signature
from tests.notify.places import Place
from tests.notify.test_slack import message, send

pagerduty = pytest.mark.parametrize("place", ["pagerduty"], indirect=True)
statuspage = pytest.mark.parametrize("place", ["statuspage"], indirect=True)
sms = pytest.mark.parametrize("place", ["sms"], indirect=True)


# --- PagerDuty ------------------------------------------------------------------------------------


@pagerduty
@pytest.mark.parametrize(
    ("level", "severity"), [(1, "critical"), (2, "error"), (3, "warning"), (4, "info")]
)
def test_an_alert(place: Place, level: int, severity: str) -> None:
    """With the four severities, the time at which it happened, and what is known of it."""
    facts = {"state": "open", "transaction": "20261121T1"}
    send(place, message(level=level, title="x" * 2000, facts=facts))
    (alert,) = place.peer.alerts
    assert alert["severity"] == severity
    assert (alert["source"], alert["component"], alert["group"]) == (
        *("shop/production", "shop", "production"),
    )
    assert alert["timestamp"] == "2026-11-21T12:00:00Z"
    assert len(alert["summary"]) == 1024
    assert alert["custom_details"]["transaction"] == "20261121T1"
    assert alert["custom_details"]["text"] == "nothing answers"


@pagerduty
def test_the_key_of_an_alert(place: Place) -> None:
    """The same for all events of an incident, another one for another service's, of any length."""
    send(place, message(key="a/1"))
    send(place, message(key="a/2", kind="severity"))
    send(place, message(service="wiki"))
    send(place, message(subject="s" * 400))
    keys = [alert["key"] for alert in place.peer.alerts]
    assert keys[0] == "shop/production/INC-20261121-001"
    assert len(set(keys)) == 3
    assert max(map(len, keys)) == 255


@pagerduty
def test_what_is_opened_again_is_another_alert(place: Place) -> None:
    """PagerDuty opens a new one under the key of one that is resolved."""
    for number, kind in enumerate(("opened", "resolved", "reopened", "cancelled")):
        send(place, message(key=f"k/{number}", kind=kind))
    assert [alert["log"] for alert in place.peer.alerts] == [["trigger", "resolve"]] * 2


@pagerduty
def test_a_deploy_is_a_change(place: Place) -> None:
    """It wakes nobody."""
    send(place, message(kind="deployed", state="committed", facts={"version": "v2"}))
    (change,) = place.peer.changes
    assert change["custom_details"] == {"version": "v2", "text": "nothing answers"}
    assert place.peer.alerts == []


@pagerduty
def test_a_key_that_is_wrong(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """PagerDuty answers 400, and it is not tried again."""
    monkeypatch.setenv("PAGERDUTY_KEY", "tooshort")
    with pytest.raises(Rejected, match="32 characters"):
        send(place, message())
    assert place.peer.violations
    place.peer.violations.clear()


# --- Statuspage -----------------------------------------------------------------------------------


@statuspage
def test_the_four_steps(place: Place) -> None:
    """Investigating, identified, monitoring, resolved; the component goes with them."""
    page, receipt, components = place.peer, None, []
    for number, state in enumerate(("open", "acknowledged", "mitigated", "resolved")):
        receipt = send(place, message(key=f"k/{number}", state=state, text=state), receipt)
        components.append(page.components[page.component])
    (incident,) = page.incidents
    assert [u["status"] for u in reversed(incident["incident_updates"])] == [
        *("investigating", "identified", "monitoring", "resolved"),
    ]
    assert components == ["major_outage", "major_outage", "operational", "operational"]
    assert (incident["impact_override"], incident["deliver_notifications"]) == ("critical", True)


@statuspage
@pytest.mark.parametrize(
    ("level", "component", "impact"),
    [(2, "partial_outage", "major"), (3, "degraded_performance", "minor")],
)
def test_less_is_shown_as_less(place: Place, level: int, component: str, impact: str) -> None:
    """By severity."""
    send(place, message(level=level))
    assert place.peer.components[place.peer.component] == component
    assert place.peer.incidents[0]["impact_override"] == impact


@statuspage
def test_what_is_back_already(place: Place) -> None:
    """A failed deploy whose old version is back is monitored from the first."""
    send(place, message(state="mitigated"))
    assert place.arrived() == ["0: monitoring"]


@statuspage
def test_what_is_opened_again_is_another_incident(place: Place) -> None:
    """One that was resolved for everybody to read stays so."""
    receipt = send(place, message(key="k/1"))
    receipt = send(place, message(key="k/2", kind="resolved", state="resolved"), receipt)
    receipt = send(place, message(key="k/3", kind="reopened", state="open"), receipt)
    send(place, message(key="k/4", kind="mitigated", state="mitigated"), receipt)
    assert place.arrived() == [
        *("0: investigating", "0: resolved", "1: investigating", "1: monitoring"),
    ]


@statuspage
def test_a_rate_limit_of_its_own(place: Place) -> None:
    """420, and how long it wants to be left alone."""
    place.peer.fail(420, headers={"Retry-After": "60"}, content={"error": "Too many requests"})
    with pytest.raises(Undelivered) as caught:
        send(place, message())
    assert caught.value.retry_after == 60


@statuspage
def test_a_test_publishes_nothing(place: Place) -> None:
    """Only the key is tried."""
    send(place, message(kind="test"))
    assert place.peer.incidents == []
    assert [request.method for request in place.peer.requests] == ["GET"]


# --- Twilio ---------------------------------------------------------------------------------------


def text(**changes: Any) -> Any:
    """A message to a telephone."""
    return message(recipient="+4915112345678", **changes)


@sms
def test_a_lost_answer(place: Place) -> None:
    """The list is read for the same words; words of another message do not count."""
    send(place, text(title="an earlier one"))
    place.peer.fail("drop after", method="POST")
    with pytest.raises(Undelivered):
        send(place, text())
    send(place, text(), again=True)
    assert len(place.peer.messages) == 2


@sms
@pytest.mark.parametrize("status", ["failed", "undelivered"])
def test_one_that_did_not_reach_the_telephone(place: Place, status: str) -> None:
    """It is sent again."""
    send(place, text())
    place.peer.messages[0]["status"] = status
    send(place, text(), again=True)
    assert len(place.peer.messages) == 2


@sms
def test_a_key_that_may_not_read(place: Place) -> None:
    """It says so in the documents: one too many rather than none."""
    place.peer.may_read = False
    send(place, text())
    send(place, text(), again=True)
    assert len(place.peer.messages) == 2


@sms
def test_a_number_that_is_none(place: Place) -> None:
    """Twilio's own words and number of the error."""
    error = place.peer.error(400, 21211, "The 'To' number +4915112345678 is not a valid number.")
    place.peer.fail(400, content=error.content)
    with pytest.raises(Rejected, match=r"is not a valid number.*docs/api/errors"):
        send(place, text())


@sms
def test_a_long_story_is_cut(place: Place) -> None:
    """Each 153 characters are billed."""
    send(place, text(text="y" * 5000))
    assert len(place.peer.messages[0]["body"]) == 320


# --- webhooks -------------------------------------------------------------------------------------


def test_the_signature_of_the_standard() -> None:
    """The example that the Standard Webhooks publish with their libraries."""
    body = b'{"test": 2432232314}'
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert (
        signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("place", ["webhook"], indirect=True)
def test_the_body_of_a_webhook(place: Place) -> None:
    """What a program needs, under an id that stays the same for the same message."""
    send(place, message(text="ü"))
    send(place, message(text="ü"), again=True)
    (body,) = place.peer.messages.values()
    assert body["type"] == "incident.opened"
    assert body["timestamp"] == "2026-11-21T12:00:00Z"
    assert body["data"]["incident"] == "INC-20261121-001"
    assert (body["data"]["text"], body["data"]["severity"]) == ("ü", 1)
    assert len(place.peer.requests) == 2
    assert json.loads(place.peer.requests[0].body) == body
