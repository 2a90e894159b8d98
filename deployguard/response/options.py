"""The ways out of an incident, computed: rollback, hotfix, mitigate. Pure.

Each says whether it is possible at all and if not why, how long it is going to take by how long it
took here, which data is at risk, and how much there is to be said for it. What speaks for it and
what against it stands there, so that a person can weigh it otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from deployguard.response.assessment import RECENT, Assessment
from deployguard.response.history import Estimate, History, estimate

__all__ = [
    "Candidate",
    "Kind",
    "Migration",
    "Option",
    "WayBack",
    "Written",
    "options",
    "suggested",
]

Kind = Literal["rollback", "hotfix", "mitigate"]
Confidence = Literal["high", "medium", "low"]

_RANK: dict[str, int] = {"high": 0, "medium": 1, "low": 2}
#: Files and tasks that are named before "and N more".
_NAMED = 5


@dataclass(frozen=True)
class Migration:
    """A migration that a rollback goes back over, and the version that came with it."""

    host: str
    task: str
    kind: str
    version: str


@dataclass(frozen=True)
class WayBack:
    """What the look that a rollback begins with has found.

    ``version`` is where it leads; ``refused`` is why it cannot be, each with its mend;
    ``changed`` are files in the managed trees that were written since, which would go;
    ``unproven`` says why there was no such look.
    """

    version: str = ""
    refused: tuple[str, ...] = ()
    migrations: tuple[Migration, ...] = ()
    changed: tuple[str, ...] = ()
    unproven: str = ""


@dataclass(frozen=True)
class Candidate:
    """A release that may be the fix. ``problem`` says why it is none; with no version, why there
    is no release."""

    version: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Written:
    """How much was written since the last deploy, or why that is not known."""

    count: float | None = None
    unit: str = "rows"
    unknown: str = "`respond.writes` of the plan would tell"


@dataclass(frozen=True)
class Option:
    """One way out.

    ``impossible`` are the reasons why it cannot be done; empty when it can. ``pro`` and ``contra``
    are what ``confidence`` comes from.
    """

    kind: Kind
    title: str
    version: str = ""
    impossible: tuple[str, ...] = ()
    downtime: Estimate = field(default_factory=Estimate)
    downtime_words: str = ""
    data: tuple[str, ...] = ()
    confidence: Confidence = "low"
    pro: tuple[str, ...] = ()
    contra: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """Whether it can be chosen."""
        return not self.impossible

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "possible": self.possible}


def options(
    assessment: Assessment,
    history: History,
    *,
    way_back: WayBack,
    candidate: Candidate,
    written: Written,
    mitigations: Sequence[str] = (),
    began: float | None = None,
) -> tuple[Option, ...]:
    """The three options, in this order. ``mitigations`` are the steps that the plan has for it;
    ``began`` is when users were hit first, or when it was detected."""
    began = assessment.at if began is None else began
    return (
        _rollback(assessment, history, way_back, written, began),
        _hotfix(assessment, history, candidate, began),
        _mitigate(assessment, history, mitigations),
    )


def suggested(found: Iterable[Option]) -> Option | None:
    """The possible option that most speaks for; of equals the first."""
    able = [option for option in found if option.possible]
    return min(able, key=lambda option: _RANK[option.confidence], default=None)


# --- rollback -----------------------------------------------------------------------------------


def _rollback(
    assessment: Assessment, history: History, way: WayBack, written: Written, began: float
) -> Option:
    impossible = [f"{one.host}: {one.error}" for one in assessment.unreachable]
    impossible += [f"{one.host}: {what}" for one in assessment.hosts for what in one.unfinished]
    impossible += [reason for reason in way.refused if reason not in impossible]
    if not way.version and not impossible:
        impossible.append("no host has an earlier version to go back to")
    downtime, words = _downtime(history)
    pro, contra, strong = _for_rollback(assessment, history, way, began)
    return Option(
        "rollback",
        f"go back to {way.version}" if way.version else "go back to the version before",
        way.version,
        tuple(dict.fromkeys(impossible)),
        downtime,
        words,
        tuple(_at_risk(way, written)),
        _confidence(pro, contra, strong),
        tuple(pro),
        tuple(contra),
    )


def _downtime(history: History) -> tuple[Estimate, str]:
    back = [one.downtime for one in history.rollbacks if one.status == "committed"]
    found = estimate(back, "rollback")
    words = "from the stop of the services until the checks have passed, on each host"
    if found.known:
        return found, words
    # A rollback takes the steps of a deploy: stop, swap, start, check.
    found = estimate((one.downtime for one in history.deploys), "deploy")
    if found.known:
        return found, f"{words}; none was rolled back here yet, a deploy takes the same steps"
    return found, "none was measured here yet"


def _for_rollback(
    assessment: Assessment, history: History, way: WayBack, began: float
) -> tuple[list[str], list[str], bool]:
    pro: list[str] = []
    contra: list[str] = []
    strong = False
    changed = assessment.last_change()
    if changed is None or began - changed > RECENT:
        contra.append(
            "nothing was deployed in the 24 hours before it began: the code may not be it"
        )
        strong = True
    elif changed > began:
        contra.append("it began before the version that is live now was deployed")
        strong = True
    else:
        pro.append(f"it began {_span(began - changed)} after the deploy")
    news = sum(len(log.news) for log in assessment.logs)
    if news:
        pro.append(f"{news} {_s(news, 'kind')} of errors in the logs that were not there before it")
    for down in assessment.dependencies:
        contra.append(f"{down.host}: {down.name} fails as well, and going back does not mend that")
        strong = True
    lived = [one for one in history.of_version(way.version) if one.status == "committed"]
    if lived:
        pro.append(f"{way.version} was deployed here before, and its checks passed")
    done = history.rollbacks
    good = sum(one.status == "committed" for one in done)
    if done:
        said = f"{good} of {len(done)} rollbacks here went well"
        (pro if good == len(done) else contra).append(said)
    reversible = [one for one in way.migrations if one.kind == "reversible"]
    if reversible:
        tasks = ", ".join(dict.fromkeys(one.task for one in reversible))
        contra.append(f"the schema is taken back first: {tasks}")
    if way.unproven:
        contra.append(f"the hosts were not looked at: {way.unproven}")
        strong = True
    return pro, contra, strong


def _at_risk(way: WayBack, written: Written) -> Iterator[str]:
    for one in _by_task(way.migrations):
        if one.kind == "reversible":
            yield f"what {one.task} of {one.version} has added goes with its down step"
        elif one.kind == "expand_only":
            yield f"nothing of {one.task} of {one.version}: the wider schema stays"
        else:
            yield f"{one.task} of {one.version} stays; {way.version} may not know the schema"
    if way.changed:
        more = f" and {len(way.changed) - _NAMED} more" if len(way.changed) > _NAMED else ""
        names = ", ".join(way.changed[:_NAMED])
        yield f"files that were changed on the hosts, kept as a bundle: {names}{more}"
    if written.count is None:
        yield f"writes since the deploy: not known ({written.unknown})"
    elif written.count:
        stay = "they stay, in the form that the new version gave them"
        if any(one.kind == "reversible" for one in way.migrations):
            stay = "those in what the down step drops are lost"
        yield f"{written.count:g} {written.unit} written since the deploy: {stay}"
    else:
        yield f"no {written.unit} written since the deploy"


def _by_task(migrations: Iterable[Migration]) -> list[Migration]:
    return list({(one.task, one.version): one for one in migrations}.values())


# --- hotfix -------------------------------------------------------------------------------------


def _hotfix(assessment: Assessment, history: History, candidate: Candidate, began: float) -> Option:
    impossible = [f"{one.host}: {one.error}" for one in assessment.unreachable]
    impossible += [f"{one.host}: {what}" for one in assessment.hosts for what in one.unfinished]
    if candidate.problem:
        impossible.append(candidate.problem)
    pro: list[str] = []
    contra: list[str] = []
    strong = False
    tries = history.of_version(candidate.version) if candidate.version else ()
    failed = [one for one in tries if one.status in ("rolled_back", "needs_person")]
    if failed:
        contra.append(f"{candidate.version} failed here before: {failed[-1].transaction}")
        strong = True
    deploys = history.deploys
    good = sum(one.status == "committed" for one in deploys)
    if deploys:
        said = f"{good} of {len(deploys)} deploys here went well"
        (pro if good == len(deploys) else contra).append(said)
    if candidate.version and not tries:
        contra.append(f"{candidate.version} has never run here")
    times = history.fixes
    if times:
        took = estimate(times, "fix")
        assert took.median is not None
        contra.append(
            f"after {took.n} {_s(took.n, 'incident')} here a new version was live "
            f"{_span(took.median)} later (median)"
        )
    found = estimate((one.downtime for one in deploys), "deploy")
    words = "from the stop of the services until the checks have passed, on each host"
    restores = estimate((one.restored for one in deploys), "restore")
    if restores.median is not None:
        back = f"{_span(restores.median)} (median of {restores.n})"
        words += f"; if it fails, what runs now was back within {back}"
    return Option(
        "hotfix",
        f"deploy {candidate.version}" if candidate.version else "deploy a version with a fix",
        candidate.version,
        tuple(dict.fromkeys(impossible)),
        found,
        words if found.known else "none was measured here yet",
        ("none is taken back; what the fix itself changes is in its own tasks",),
        _confidence(pro, contra, strong or not tries),
        tuple(pro),
        tuple(contra),
    )


# --- mitigate -----------------------------------------------------------------------------------


def _mitigate(assessment: Assessment, history: History, steps: Sequence[str]) -> Option:
    impossible = [] if steps else ["the plan has no steps for it (add them to `respond.mitigate`)"]
    if assessment.hosts and len(assessment.unreachable) == len(assessment.hosts):
        impossible += [f"{one.host}: {one.error}" for one in assessment.unreachable]
    pro: list[str] = []
    contra = ["the cause stays"]
    times = history.mitigated
    if times:
        said = f"healthy afterwards {sum(times)} of {len(times)} times here"
        (pro if all(times) else contra).append(said)
    else:
        contra.append("it was never tried here")
    if assessment.healthy:
        pro.append("the checks that matter are healthy as it is")
    return Option(
        "mitigate",
        f"run {', '.join(steps)}" if steps else "live with it for a while",
        "",
        tuple(impossible),
        Estimate(0, "mitigation"),
        "none of its own; users meet what they meet now until it works",
        ("none is taken back",),
        _confidence(pro, contra[1:], not times),
        tuple(pro),
        tuple(contra),
    )


# --- words --------------------------------------------------------------------------------------


def _confidence(pro: Sequence[str], contra: Sequence[str], strong: bool) -> Confidence:
    """High where something speaks for it and nothing against it, low where what speaks against it
    weighs more than any number."""
    if strong:
        return "low"
    if len(pro) >= 2 and not contra:
        return "high"
    return "medium" if pro else "low"


def _s(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
