"""What all blocks of the plan file have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["Block", "OneOf"]


class Block(BaseModel):
    """A block of the plan file: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class OneOf(Block):
    """A block with exactly one of its kind fields set."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    KINDS: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _exactly_one(self) -> OneOf:
        given = [kind for kind in self.KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            names = ", ".join(self.KINDS)
            raise ValueError(f"needs exactly one of {names}; got {', '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """The name of the one kind that is set."""
        return next(kind for kind in self.KINDS if getattr(self, kind) is not None)

    @property
    def spec(self) -> Any:
        """The block of the one kind that is set."""
        return getattr(self, self.kind)
