"""What runs in a pod: a behaviour by the name of its image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: Path to status and body; ``env`` is what the container got when it was started.
Routes = Callable[[Mapping[str, str]], Mapping[str, tuple[int, dict[str, Any]]]]


def _nothing(_: Mapping[str, str]) -> Mapping[str, tuple[int, dict[str, Any]]]:
    return {}


@dataclass(frozen=True)
class Image:
    """A behaviour.

    ``fault`` is empty, ``crash`` (exits at once), ``unready`` (its readiness probe fails) or
    ``stubborn`` (ignores SIGTERM). ``logs`` is what it prints at its start; ``{NAME}`` in it is
    its environment's, for programs that print what they should not.
    """

    version: str = ""
    routes: Routes = _nothing
    fault: str = ""
    logs: str = "listening"


def serving(version: str, fault: str = "") -> Image:
    """A program that says its version at ``/``."""
    return Image(version, lambda env: {"/": (200, {"version": version})}, fault)
