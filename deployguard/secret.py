"""A value that never prints itself.

Tokens and passwords travel through the code as :class:`Secret`, so that a log line, a repr, a
traceback, a pickle dump of settings or an f-string shows ``******`` instead of the value. The
value comes out in one way only, :meth:`Secret.reveal`, which is easy to search for.
"""

from __future__ import annotations

import os
from typing import NoReturn

__all__ = ["Secret"]


class Secret:
    """A string that shows as ``******`` everywhere but in :meth:`reveal`."""

    __slots__ = ("_value", "origin")

    def __init__(self, value: str, origin: str = "") -> None:
        self._value = value
        self.origin = origin

    @classmethod
    def from_environment(cls, *names: str) -> Secret | None:
        """The first of the environment variables that is set and not empty, else ``None``."""
        for name in names:
            value = os.environ.get(name)
            if value:
                return cls(value, origin=name)
        return None

    def reveal(self) -> str:
        """The value itself. Call it where the value leaves the program, and nowhere else."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret(****** from {self.origin})" if self.origin else "Secret(******)"

    def __str__(self) -> str:
        return "******"

    def __format__(self, spec: str) -> str:
        return "******"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret does not pickle; pass the name of its environment variable")
