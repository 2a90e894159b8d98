"""Opens what a plan deploys; whatever is wrong with an artifact is a mistake at its line."""

from __future__ import annotations

import contextlib
from pathlib import Path

from deployguard.artifact.release import ArtifactInvalid, open_artifact
from deployguard.errors import Mistake, PlanInvalid, UsageError
from deployguard.plan.model import Plan
from deployguard.plan.places import mistake_at
from deployguard.rollout.targets import Source, source_of_release

__all__ = ["open_releases"]

#: More refused members than this of one archive are counted, not listed.
SHOWN = 20


def open_releases(plan: Plan, stack: contextlib.ExitStack) -> dict[str, Source]:
    """Every component's release, open until ``stack`` is closed.

    Raises :class:`PlanInvalid` with all that is wrong with all artifacts.
    """
    sources: dict[str, Source] = {}
    mistakes: list[Mistake] = []
    for name, component in plan.components.items():
        artifact = component.artifact
        try:
            release = open_artifact(
                Path(plan.source).parent / artifact.path,
                sha256=artifact.sha256,
                strip_components=artifact.strip_components,
                owner_from_artifact=component.owner == "artifact",
            )
            stack.callback(release.close)
            sources[name] = source_of_release(plan, component, release)
        except ArtifactInvalid as error:
            mistakes += _mistakes(plan, name, error)
        except UsageError as error:
            where = ("components", name, "shared")
            mistakes.append(mistake_at(plan, where, error.message, error.hint))
    if mistakes:
        raise PlanInvalid(mistakes, subject="the artifacts")
    return sources


def _mistakes(plan: Plan, name: str, error: ArtifactInvalid) -> list[Mistake]:
    where = ("components", name, "artifact", error.option)
    file = plan.components[name].artifact.path
    found = [
        mistake_at(plan, where, f"{file}: {problem}", error.hint or _mend(problem))
        for problem in error.problems[:SHOWN]
    ]
    left = len(error.problems) - SHOWN
    if left > 0:
        found.append(mistake_at(plan, where, f"{file}: and {left} more members like these"))
    return found


def _mend(problem: str) -> str:
    # What is wrong with one member begins with its name, as Python writes it.
    if problem.startswith(("'", '"')):
        return "pack it anew without that; a release stays inside its own tree"
    return "build or fetch it again"
