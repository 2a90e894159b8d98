"""The service of ``tests/cli`` for the action to deploy."""

from __future__ import annotations

from tests.cli.conftest import site as site
