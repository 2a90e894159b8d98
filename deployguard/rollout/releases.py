"""Opens what a plan deploys; whatever is wrong with an artifact is a mistake at its line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from deployguard.artifact.release import ArtifactInvalid, open_artifact
from deployguard.artifact.repository import GitRevision
from deployguard.errors import Mistake, PlanInvalid, UsageError
from deployguard.onhost.trees.scan import Patterns
from deployguard.plan import composefile
from deployguard.plan.model import Component, Git, Plan
from deployguard.plan.places import mistake_at
from deployguard.plan.suggestion import did_you_mean
from deployguard.rollout.targets import Source, source_of_release

__all__ = ["open_releases", "open_revision"]

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
            if component.layout == "git":
                sources[name] = open_revision(plan, name, stack)
                mistakes += _compose_files(plan, name, component, sources[name])
                mistakes += _ecosystem(plan, name, component, sources[name])
                continue
            assert artifact is not None, "validation asks for one"
            release = open_artifact(
                Path(plan.source).parent / artifact.path,
                sha256=artifact.sha256,
                strip_components=artifact.strip_components,
                owner_from_artifact=component.owner == "artifact",
            )
            stack.callback(release.close)
            sources[name] = source_of_release(plan, component, release)
            mistakes += _compose_files(plan, name, component, sources[name])
            mistakes += _ecosystem(plan, name, component, sources[name])
        except ArtifactInvalid as error:
            mistakes += _mistakes(plan, name, error)
        except UsageError as error:
            where = ("components", name, "shared")
            mistakes.append(mistake_at(plan, where, error.message, error.hint))
    if mistakes:
        raise PlanInvalid(mistakes, subject="the artifacts")
    return sources


def open_revision(plan: Plan, name: str, stack: contextlib.ExitStack) -> Source:
    """The revision of a checkout; opened here where it is sent from here.

    Raises :class:`ArtifactInvalid`.
    """
    git = plan.components[name].git or Git.model_validate({})
    if git.repository is None:
        return Source(plan.version, git=git)
    path = Path(plan.source).parent / git.repository
    revision = GitRevision(path, git.revision or plan.version)
    stack.callback(revision.close)
    return Source(plan.version, git=git, revision=revision)


def _mistakes(plan: Plan, name: str, error: ArtifactInvalid) -> list[Mistake]:
    component = plan.components[name]
    git = component.layout == "git"
    where = ("components", name, "git" if git else "artifact", error.option)
    file = component.artifact.path if component.artifact is not None else ""
    file = component.git.repository or "" if component.git is not None else file
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


def _compose_files(
    plan: Plan, name: str, component: Component, source: Source
) -> Iterator[Mistake]:
    """What is wrong with the compose files of a release; of what hosts fetch it is not known."""
    compose = component.service.compose if component.service is not None else None
    if compose is None or not source.is_here:
        return
    where = ("components", name, "service", "compose", "file")
    artifact = component.artifact.path if component.artifact is not None else source.version
    own = Patterns([path.rstrip("/") for path in (*component.keep, *component.shared)])
    there = [path for path in composefile.DEFAULT_FILES if source.has(path)]
    wanted = compose.file or there[:1]
    if not wanted:
        looked = ", ".join(composefile.DEFAULT_FILES[:4])
        hint = f"looked for {looked}; name it: `compose: {{file: …}}`"
        yield mistake_at(plan, where, f"{artifact}: there is no compose file in it", hint)
    files: list[tuple[str, bytes]] = []
    # What the tool adds by itself, and what is the host's own, may have more services.
    whole = bool(compose.file) or not any("override" in path for path in source.files())
    for path in wanted:
        if path.startswith("/") or own.match(path):
            whole = False
            continue
        kind, content = source.kind(path), source.read(path)
        if kind in ("", "d"):
            yield mistake_at(plan, where, f"{artifact}: there is no {path} in it", "mend the name")
        elif content is not None:
            files.append((path, content))
    for fault in composefile.faults(files):
        yield mistake_at(plan, where, f"{artifact}: {fault}", "mend the compose file")
    known = composefile.services_in(files) if files and whole else None
    if known is not None:
        yield from _unknown_services(plan, name, component, f"{artifact}: {wanted[0]}", known)


def _unknown_services(
    plan: Plan, name: str, component: Component, file: str, known: list[str]
) -> Iterator[Mistake]:
    """Services that the plan names and the stack has not: a check of one could never pass."""
    compose = component.service.compose if component.service is not None else None
    assert compose is not None, "this is a stack"
    root: tuple[str | int, ...] = ("components", name)
    named = [
        ((*root, "service", "compose", "one_shot", i), s) for i, s in enumerate(compose.one_shot)
    ]
    for index, check in enumerate(component.checks):
        place = (*root, "checks", index)
        if check.container is not None:
            services = enumerate(check.container.services)
            named += [((*place, "container", "services", i), s) for i, s in services]
        if check.http is not None and check.http.service is not None:
            named.append(((*place, "http", "service"), check.http.service))
    for where, service in named:
        if service not in known:
            hint = did_you_mean(service, known, among="it has")
            yield mistake_at(plan, where, f"{file} has no service {service}", hint)


def _ecosystem(plan: Plan, name: str, component: Component, source: Source) -> Iterator[Mistake]:
    """PM2 is to start from a file of the release: it has to be there before anything stops."""
    pm2 = component.service.pm2 if component.service is not None else None
    if pm2 is None or pm2.ecosystem is None or pm2.ecosystem.startswith("/"):
        return
    if not source.is_here:
        return
    own = Patterns([path.rstrip("/") for path in (*component.keep, *component.shared)])
    if not source.has(pm2.ecosystem) and not own.match(pm2.ecosystem):
        where = ("components", name, "service", "pm2", "ecosystem")
        hint = did_you_mean(pm2.ecosystem, source.files(), among="it has")
        artifact = component.artifact.path if component.artifact is not None else source.version
        message = f"{artifact}: there is no {pm2.ecosystem} in it"
        yield mistake_at(plan, where, message, hint or "mend the name")
