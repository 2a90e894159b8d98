"""Whether every link of a tree stays inside it; asked of the manifest, before it is built."""

from __future__ import annotations

from deployguard.onhost.trees.manifest import Entry, Manifest

# As many as the kernel follows; a longer chain leads nowhere at all (ELOOP).
_MAX_FOLLOWED = 40


def escaping_links(manifest: Manifest) -> list[str]:
    """A line for every link that is absolute or climbs out, through other links as well."""
    return [
        f"{entry.path!r}: the link to {entry.digest!r} leaves the tree"
        for entry in manifest
        if entry.kind == "l" and _escapes(entry, manifest)
    ]


def _escapes(link: Entry, manifest: Manifest) -> bool:
    """Walk the target as the kernel would, from the directory the link is in."""
    here = link.path.split("/")[:-1]
    ahead = _steps(link.digest)
    followed = 0
    while ahead:
        step = ahead.pop()
        if step == "/":
            return True
        if step == "..":
            if not here:
                return True
            here.pop()
            continue
        here.append(step)
        entry = manifest.get("/".join(here))
        if entry is not None and entry.kind == "l":
            followed += 1
            if followed > _MAX_FOLLOWED:
                return False
            here.pop()
            ahead.extend(_steps(entry.digest))
    return False


def _steps(target: str) -> list[str]:
    """The components of a target, the first one last; ``/`` stands for the root."""
    steps = [step for step in target.split("/") if step not in ("", ".")]
    if target.startswith("/"):
        steps.insert(0, "/")
    return steps[::-1]
