"""``deployguard incident respond``: assess, contain, choose a way out, go it, prove it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from deployguard.cli.console import Console
from deployguard.cli.moments import read_moment
from deployguard.cli.options import common, going_over, plan_file, variables

if TYPE_CHECKING:
    from deployguard.incidents.book import Book
    from deployguard.incidents.record import Incident
    from deployguard.plan.model import Plan
    from deployguard.response.assessment import Assessment
    from deployguard.response.containment import Hands
    from deployguard.response.history import History
    from deployguard.response.options import Option
    from deployguard.response.responding import Result
    from deployguard.rollout.outcome import Outcome

__all__ = ["respond_command"]

_CHOICES = ("rollback", "hotfix", "mitigate", "none")


@click.command("respond")
@plan_file()
@click.argument("incident", metavar="[INC]", required=False)
@click.option(
    "--open",
    "opening",
    nargs=2,
    metavar="SEVERITY TITLE",
    help="Open the incident first; SEVERITY may be `auto`, by what the assessment finds.",
)
@click.option("--assess", is_flag=True, help="Show the assessment and the options; do nothing.")
@click.option("--choose", type=click.Choice(_CHOICES), help="The way out, instead of a question.")
@click.option("--yes", is_flag=True, help="Ask nothing: contain, and do what --choose says.")
@click.option("--no-contain", is_flag=True, help="Do no step of `respond.contain`.")
@click.option("--keep-contained", is_flag=True, help="Take no step back at the end.")
@click.option("--undo", is_flag=True, help="Take back the steps that are in force, and no more.")
@click.option("--to", metavar="VERSION", help="Where a rollback leads; the version before if not.")
@click.option(
    "--since",
    metavar="TIME",
    callback=read_moment,
    help="What is new in the logs since; the last deploy if not.",
)
@click.option("--by", metavar="NAME", help="Who you are; USER@MACHINE when left out.")
@variables
@going_over(fix=False)
@common
def respond_command(
    console: Console,
    plan_path: str,
    incident: str | None,
    opening: tuple[str, str] | None,
    by: str | None,
    **given: Any,
) -> int:
    """Assess what is wrong, limit the damage, choose a way out, and go it.

    The assessment changes nothing and is bounded in time. The options, rollback, hotfix and
    mitigate, are computed from it and from what was measured here before. A person chooses, or
    --choose with --yes does. --release names the version that a hotfix would deploy.
    """
    from deployguard import api
    from deployguard.cli.incident import open_book, who
    from deployguard.cli.notify import telling

    plan = api.load(
        plan_path, version=given["release"], variables=given["variables"], local_files=False
    )
    console.know(plan)
    there = sys.stdin.isatty() and sys.stderr.isatty() and console.workflow is None
    _demand_choice(given, there)
    book = open_book(who(by), plan)
    response = _Response(console, plan, book, given, there)
    if given["undo"]:
        return response.undo(_find(book, plan, incident))
    if given["assess"]:
        found = _ongoing(book, plan) if incident is None else [_find(book, plan, incident)]
        response.assess(found[0] if len(found) == 1 else None)
        response.offer(found[0] if len(found) == 1 else None)
        return 0
    with telling(console):
        if opening is None:
            return response.run(_find(book, plan, incident))
        return response.run(None, opening)


def _demand_choice(given: dict[str, Any], there: bool) -> None:
    """Nothing is begun that nobody is there to end."""
    from deployguard.errors import UsageError

    if there or given["assess"] or given["undo"] or (given["choose"] and given["yes"]):
        return
    what = "to confirm it" if given["choose"] else "to choose"
    raise UsageError(
        f"nobody is here {what}, and nothing was done",
        hint=f"--choose {given['choose'] or 'rollback'} --yes does it without asking; --assess "
        "only shows the options",
    )


def _ongoing(book: Book, plan: Plan) -> list[Incident]:
    return book.lookup.ongoing(plan.name, plan.environment)


def _find(book: Book, plan: Plan, name: str | None) -> Incident:
    from deployguard.errors import UsageError

    if name is not None:
        found = book.lookup.get(name)
        if found.service not in ("", plan.name) or found.environment not in ("", plan.environment):
            where = f"{found.service} in {found.environment}"
            raise UsageError(f"{found.id} is about {where}", hint="name the plan of that service")
        return found
    ongoing = _ongoing(book, plan)
    if len(ongoing) == 1:
        return ongoing[0]
    what = f"of {plan.name} in {plan.environment}"
    if not ongoing:
        hint = '--open critical "API down" opens one; --assess looks without any'
        for one in book.lookup.ongoing("")[:1]:
            hint = f"name {one.id} if it is about this: {one.title}; or {hint}"
        raise UsageError(f"no incident {what} is ongoing", hint=hint)
    names = "; ".join(f"{one.id} {one.title}" for one in ongoing)
    raise UsageError(f"{len(ongoing)} incidents {what} are ongoing", hint=f"name one: {names}")


class _Response:
    """One run of the command."""

    def __init__(
        self, console: Console, plan: Plan, book: Book, given: dict[str, Any], there: bool
    ) -> None:
        from deployguard.response.history import read_history
        from deployguard.store.opening import open_journal

        self.console = console
        self.plan = plan
        self.book = book
        self.given = given
        self.there = there
        self.history: History = read_history(open_journal(), plan.name, plan.environment)
        self.assessment: Assessment

    def hands(self, incident: Incident) -> Hands:
        from deployguard import api
        from deployguard.report.redaction import Redaction
        from deployguard.response.containment import Hands, demand_clean

        demand_clean(self.plan, Redaction(self.plan).value)
        return Hands(self.plan, api.connect, self.book, incident, self.console.say)

    # --- the walk -------------------------------------------------------------------------------

    def run(self, incident: Incident | None, opening: tuple[str, str] | None = None) -> int:
        """Assess, contain, choose, execute."""
        from deployguard.cli import incident_text, response_text
        from deployguard.incidents.severity import level_named
        from deployguard.response.assessment import suggested_severity
        from deployguard.response.responding import opened

        console = self.console
        if opening is not None and opening[0] != "auto":
            level = level_named(opening[0])
            incident = opened(self.book, self.plan, level, opening[1], self.given["since"])
        self.assess(incident)
        level, why = suggested_severity(self.assessment)
        if incident is None:
            assert opening is not None
            incident = opened(self.book, self.plan, level, opening[1], self.given["since"])
        if self.there and incident.state == "open" and incident.acknowledged_at is None:
            incident = self.book.move(incident.id, "acknowledge", "responding")
        hands = self.hands(incident)
        incident = self.book.note(
            incident.id,
            response_text.summary(self.assessment),
            kind="assessed",
            detail={"suggests": level, "because": why, "healthy": self.assessment.healthy},
        )
        console.say(incident_text.heading(incident), fg=incident_text.color_of(incident))
        if level < incident.severity:
            words = f"it looks worse than that, {why}"
            console.say(f"{words}: `deployguard incident severity {incident.id} {level}`")
        self.contain(incident, hands)
        option = self.choose(self.offer(incident), incident)
        if option is None:
            return 0
        return self.end(self.execute(option, incident, hands))

    def assess(self, incident: Incident | None) -> None:
        """Ask the hosts, and show what they say."""
        from deployguard import api
        from deployguard.cli import response_text
        from deployguard.response.asking import assess

        moment = None
        if incident is not None:
            moment = incident.impact_at if incident.impact_at is not None else incident.detected_at
        self.assessment = assess(
            self.plan, api.connect, self.history, since=self.given["since"], otherwise=moment
        )
        self.console.emit("assessment", self.assessment.as_dict())
        for line, color in response_text.assessed(self.assessment):
            self.console.say(line, fg=color)

    def contain(self, incident: Incident, hands: Hands) -> None:
        """The steps that the severity asks for, but for those that are in force already."""
        from deployguard.cli import response_text
        from deployguard.incidents.severity import name_of
        from deployguard.response.containment import in_force, steps_for

        if self.given["no_contain"]:
            return
        done = {one.step for one in in_force(self.book.lookup.timeline(incident.id))}
        steps = [s for s in steps_for(self.plan, incident.severity) if s.name not in done]
        if not steps:
            return
        self.console.say(f"containment at {name_of(incident.severity)}")
        for line, color in response_text.contained(steps):
            self.console.say(line, fg=color)
        if not self.given["yes"] and not click.confirm("do that now?", err=True, default=True):
            return
        silent = [host.host for host in self.assessment.unreachable]
        for step in steps:
            # One that fails does not keep the others back; it is written down.
            hands.do(step, silent)

    def offer(self, incident: Incident | None) -> tuple[Option, ...]:
        """Compute the options and show them."""
        from deployguard import api
        from deployguard.cli import response_text
        from deployguard.guards.registry import checked_overrides
        from deployguard.response import planning
        from deployguard.response.options import options

        plan, seen, given = self.plan, self.assessment, self.given
        way = planning.way_back(
            plan,
            seen,
            api.connect,
            to=given["to"],
            variables=given["variables"],
            drift=given["drift"],
            overrides=checked_overrides(given["overrides"]),
        )
        began = None
        if incident is not None:
            began = incident.impact_at if incident.impact_at is not None else incident.detected_at
        found = options(
            seen,
            self.history,
            way_back=way,
            candidate=planning.candidate(
                plan,
                seen,
                named=given["release"] is not None,
                back=way.version,
                variables=given["variables"],
            ),
            written=planning.written(plan, seen, api.connect),
            mitigations=[step.name for step in plan.respond.mitigate],
            began=began,
        )
        self.console.emit("options", {"options": [option.as_dict() for option in found]})
        self.console.say("ways out")
        for line, color in response_text.offered(found):
            self.console.say(line, fg=color)
        return found

    def choose(self, found: tuple[Option, ...], incident: Incident) -> Option | None:
        """By the flag, or by whoever sits there; written down either way."""
        from deployguard.errors import Refused

        by_name = {option.kind: option for option in found}
        choice = self.given["choose"]
        if choice is None:
            choice = self.ask(found)
        option = by_name.get(choice)
        if option is not None and not option.possible:
            words = f"{choice} is not possible: {'; '.join(option.impossible)}"
            self.book.note(incident.id, words, kind="decided")
            raise Refused(words, hint=f"{incident.id} is {incident.state}; the ways out are above")
        if option is not None and not self.given["yes"]:
            sure = click.confirm(f"{option.kind}: {option.title}?", err=True)
            option = option if sure else None
        words = f"{option.kind}: {option.title}" if option else "none of the ways out for now"
        if option is not None:
            reasons = "; ".join(option.pro)
            words += f"; confidence {option.confidence}{f': {reasons}' if reasons else ''}"
        detail = {"options": [one.as_dict() for one in found]}
        self.book.note(incident.id, words, kind="decided", detail=detail)
        if option is None:
            self.console.say("nothing more is done; what was contained stays until --undo")
        return option

    def ask(self, found: tuple[Option, ...]) -> str:
        """Until the answer is one that can be done."""
        while True:
            number = click.prompt(
                f"which? 1 to {len(found)}, 0 for none",
                type=click.IntRange(0, len(found)),
                err=True,
            )
            if number == 0:
                return "none"
            option = found[number - 1]
            if option.possible:
                return option.kind
            self.console.say(f"{option.kind} is not possible: {option.impossible[0]}", fg="yellow")

    def execute(self, option: Option, incident: Incident, hands: Hands) -> Result:
        """Go the way that was chosen."""
        from deployguard.response.responding import execute

        return execute(
            option,
            self.plan,
            self.book,
            incident,
            hands,
            self.history,
            self.assessment,
            deploy=lambda option: self.deploy(option, incident),
            person=self.there,
            keep=self.given["keep_contained"],
            tell=self.console.say,
        )

    def deploy(self, option: Option, incident: Incident) -> Outcome:
        """A rollback or a hotfix, under the eyes of whoever is there."""
        from deployguard import api
        from deployguard.cli.ending import quitting
        from deployguard.cli.interrupt import handing_over
        from deployguard.cli.progress import showing
        from deployguard.guards.registry import checked_overrides

        plan, given = self.plan, self.given
        title = f"{option.kind} of {plan.name} in {plan.environment}: {option.title}"
        going_over: dict[str, Any] = {"drift": given["drift"], "incident": incident.id}
        going_over["overrides"] = checked_overrides(given["overrides"])
        with (
            handing_over(quitting(self.console), plan.arguments) as stop,
            showing(self.console, title, list(plan.hosts)) as show,
        ):
            if option.kind == "rollback":
                return api.rollback(
                    plan,
                    to=option.version,
                    variables=given["variables"],
                    listen=show,
                    stop=stop,
                    **going_over,
                )
            fix = api.load(plan.source, version=option.version, variables=given["variables"])
            return api.apply(fix, listen=show, fix=True, stop=stop, **going_over)

    # --- the ends -------------------------------------------------------------------------------

    def end(self, result: Result) -> int:
        """Say how it stands now."""
        from deployguard.cli import incident_text, response_text, summary

        console = self.console
        if result.outcome is not None:
            color = summary.color_of(result.outcome)
            for line, heading in summary.lines(result.outcome):
                console.say(line, **({"fg": color, "bold": True} if heading else {}))
            console.emit("outcome", result.outcome.as_dict())
        if result.after is not None:
            color = "green" if result.after.healthy else "red"
            console.say(f"now: {response_text.summary(result.after)}", fg=color)
            console.emit("assessment", result.after.as_dict())
        if result.left:
            words = f"still in force: {', '.join(result.left)}"
            undo = f"`deployguard incident respond PLAN {result.incident.id} --undo`"
            console.say(f"{words}; {undo} takes it back".replace("PLAN", self.plan.arguments))
        console.emit("incident", result.incident.as_dict())
        console.say(
            incident_text.heading(result.incident), fg=incident_text.color_of(result.incident)
        )
        console.say(f"next: {incident_text.next_step(result.incident)}")
        return int(result.exit_code)

    def undo(self, incident: Incident) -> int:
        """Take back what is in force."""
        from deployguard.errors import ExitCode
        from deployguard.response.containment import in_force

        there = in_force(self.book.lookup.timeline(incident.id))
        if not there:
            self.console.say(f"nothing is in force for {incident.id}")
            return 0
        done = self.hands(incident).undo(there)
        return 0 if all(one.ok for one in done) else int(ExitCode.NEEDS_PERSON)
