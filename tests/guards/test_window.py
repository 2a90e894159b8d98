"""`window`: freezes and welcome hours, by the clock of a time zone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from deployguard.guards.window import verdict
from deployguard.plan.model import WindowGuard
from tests.guards.conftest import Shop

BERLIN = ZoneInfo("Europe/Berlin")
#: Friday afternoon to Monday morning, and the end of the year.
WEEKEND = [{"days": ["fri"], "from": "15:00"}, {"days": ["sat", "sun"]}]
YEAR = {"from": "2026-12-20", "to": "2027-01-03", "why": "the end of the year"}


def at(text: str, zone: ZoneInfo = BERLIN, *, fold: int = 0) -> float:
    """A moment on the clock of a zone, as UTC seconds."""
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def guard(**options: Any) -> WindowGuard:
    """The guard, in Berlin."""
    return WindowGuard.model_validate({"zone": "Europe/Berlin", **options})


@pytest.mark.parametrize(
    ("moment", "frozen"),
    [
        ("2026-11-20 14:59", False),
        ("2026-11-20 15:00", True),
        ("2026-11-21 00:00", True),
        ("2026-11-22 23:59", True),
        ("2026-11-23 00:00", False),
    ],
)
def test_a_freeze_of_every_week(moment: str, frozen: bool) -> None:
    """From its first minute to the last before its end, and it ends when all of them have."""
    found = verdict(guard(freeze=WEEKEND), at(moment))
    assert found.passed is not frozen
    if frozen:
        assert "the freeze ends Mon 2026-11-23 00:00 (Europe/Berlin)" in found.message


@pytest.mark.parametrize(
    ("moment", "frozen"),
    [
        ("2026-12-19 23:59", False),
        ("2026-12-20 00:00", True),
        ("2027-01-03 23:59", True),
        ("2027-01-04 00:00", False),
    ],
)
def test_a_freeze_of_dates(moment: str, frozen: bool) -> None:
    """Its last day is part of it; the reason is said."""
    found = verdict(guard(freeze=[YEAR]), at(moment))
    assert found.passed is not frozen
    assert ("the end of the year" in found.message) is frozen


def test_over_midnight() -> None:
    """It belongs to the day on which it begins."""
    night = guard(freeze=[{"days": ["mon"], "from": "22:00", "to": "06:00"}])
    assert verdict(night, at("2026-11-23 05:59")).passed  # Monday morning: that night is Sunday's
    assert not verdict(night, at("2026-11-23 22:00")).passed
    assert not verdict(night, at("2026-11-24 05:59")).passed
    assert verdict(night, at("2026-11-24 06:00")).passed


def test_welcome_hours() -> None:
    """Outside of them the next is named."""
    hours = guard(allow=[{"days": ["mon", "tue", "wed", "thu"], "from": "09:00", "to": "16:00"}])
    assert verdict(hours, at("2026-11-19 15:59")).passed
    late = verdict(hours, at("2026-11-19 16:00"))
    assert not late.passed
    assert "deploys begin Mon 2026-11-23 09:00" in late.message
    over = guard(allow=[{"from": "2026-01-01", "to": "2026-01-31"}])
    assert "never again" in verdict(over, at("2026-11-19 16:00")).message


def test_the_zone_decides() -> None:
    """At one moment it is Friday in Berlin and Saturday in Auckland."""
    moment = at("2026-11-20 13:00")
    assert verdict(guard(freeze=[{"days": ["sat"]}]), moment).passed
    there = guard(zone="Pacific/Auckland", freeze=[{"days": ["sat"]}])
    assert not verdict(there, moment).passed


def test_hours_that_come_twice_and_never() -> None:
    """On the nights on which the clocks change the clock on the wall counts."""
    night = guard(freeze=[{"from": "02:00", "to": "03:00"}])
    assert not verdict(night, at("2026-10-25 02:30", fold=0)).passed
    assert not verdict(night, at("2026-10-25 02:30", fold=1)).passed
    assert verdict(night, at("2026-10-25 03:00")).passed
    assert verdict(night, at("2026-03-29 01:59")).passed
    assert verdict(night, at("2026-03-29 01:59") + 60).passed  # 03:00: there is no 02:30


def test_freezes_without_end() -> None:
    """Two that cover all of the week end never, and this is said in finite time."""
    always = guard(freeze=[{"from": "00:00", "to": "12:00"}, {"from": "12:00", "to": "24:00"}])
    assert "not within a year" in verdict(always, at("2026-11-20 13:00")).message


def span(hours: float) -> dict[str, str]:
    """The hour that is ``hours`` from now, on whatever day that is."""
    begins = datetime.now(timezone.utc) + timedelta(hours=hours)
    return {
        "from": begins.strftime("%Y-%m-%d %H:%M"),
        "to": (begins + timedelta(hours=2)).strftime("%Y-%m-%d %H:%M"),
        "why": "the sale",
    }


def test_a_freeze_is_refused(shop: Shop) -> None:
    """By the real clock."""
    shop.guarded({"window": {"freeze": [span(-1)]}})
    shop.assert_refused("window", "frozen: the sale", "(UTC)")


def test_outside_of_a_freeze_it_passes(shop: Shop) -> None:
    """One that is to come does not count."""
    shop.guarded({"window": {"freeze": [span(1)], "allow": [span(-1)]}})
    shop.assert_passes("window", "no freeze at")
