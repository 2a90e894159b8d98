"""What the rules of a plan may refer to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Names"]


@dataclass(frozen=True)
class Names:
    """What may be referred to; ``None`` while other mistakes hide what there is.

    So one wrong host does not make every mention of it a second mistake.
    """

    hosts: Collection[str] | None
    components: Collection[str] | None
