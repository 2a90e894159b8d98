"""Fakes, fault points and the driver conformance suite, for users too; needs ``deployguard[test]``.

``docs/drivers.md`` tells how to run the suite on a driver of your own.
"""

from __future__ import annotations

import pytest

# Before the import, so that a failing assertion in the suite shows its values.
pytest.register_assert_rewrite("deployguard.testing.conformance")

from deployguard.testing.conformance import DriverConformance  # noqa: E402 - as above
from deployguard.testing.drivercase import (  # noqa: E402 - as above
    CRASH,
    STUBBORN,
    DriverCase,
    Trial,
)

__all__ = ["CRASH", "STUBBORN", "DriverCase", "DriverConformance", "Trial"]
