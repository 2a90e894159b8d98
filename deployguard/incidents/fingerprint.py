"""What makes two failures the same one: who failed, which checks, and the shape of the words. Pure.

Times, addresses, ids, paths, versions and numbers differ from one time to the next and are masked;
what is left is the shape. Findings that are not critical do not count: they come and go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from deployguard.health.findings import UNSETTLED
from deployguard.rollout.outcome import Outcome

__all__ = ["fingerprint", "likeness", "shape", "signature"]

_LONGEST = 300

# In this order: what is more of a kind comes before what its parts would be taken for.
_MASKS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), mask)
    for pattern, mask in (
        (r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "<uuid>"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?", "<time>"),
        (r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b", "<time>"),
        (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", "<address>"),
        (r"\[redacted:[^\]]*\]", "<secret>"),
        (r"\b0x[0-9a-fA-F]+\b", "<hex>"),
        (r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,64}\b", "<hex>"),
        (r"(?<![\w/:])(?:/[\w.@+~-]+){2,}/?", "<path>"),
        (r"\d+(?:\.\d+)*", "<n>"),
    )
)


def shape(text: str, *versions: str) -> str:
    """The first line of a text with everything masked that differs from one time to the next."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    for version in versions:
        if version:
            line = re.sub(rf"(?<!\w){re.escape(version)}(?!\w)", "<version>", line)
    for pattern, mask in _MASKS:
        line = pattern.sub(mask, line)
    return " ".join(line.split())[:_LONGEST]


def signature(outcome: Outcome) -> tuple[str, ...]:
    """What failed, a line for each check or step, sorted; the same whichever hosts it was on."""
    versions = {outcome.version}
    for host in outcome.hosts:
        versions |= {str(v) for v in host.versions_before.values() if v}
    longest_first = sorted(versions, key=lambda version: (-len(version), version))
    names = [host.host for host in outcome.hosts]
    critical = [finding for finding in outcome.findings if finding.critical]
    # What was merely not there yet when the watch ended is there or not as it happens.
    settled = [one for one in critical if not one.message.startswith(UNSETTLED)] or critical
    found = {
        f"{one.component or '-'} {one.layer} {one.name}: "
        + shape(_without(one.message, names), *longest_first)
        for one in settled
    }
    return tuple(sorted(found)) or (f"- {outcome.status}",)


def _without(text: str, hosts: Iterable[str]) -> str:
    """A failure is the same on every host."""
    for host in sorted(hosts, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", "<host>", text)
    return text


def fingerprint(service: str, environment: str, signature: Iterable[str]) -> str:
    """``shop/production/3f2a91c0d4e5``: the service, where it runs, and a hash of the failure."""
    digest = hashlib.sha256("\n".join(signature).encode("utf-8", "backslashreplace"))
    return f"{service}/{environment}/{digest.hexdigest()[:12]}"


def likeness(one: Iterable[str], other: Iterable[str]) -> float:
    """How much of two signatures is the same, from 0 to 1."""
    mine, theirs = set(one), set(other)
    return len(mine & theirs) / len(mine | theirs) if mine and theirs else 0.0
