"""The same deploy by deployguard and by its peers, measured side by side, every run verified.

Run as root: ``python -m bench.deploy --hosts 1,10,40 --runs 3 --write``. The peers are installed
into environments of the benchmark's own, the hosts are those of ``tests/fleet``. A contender whose
deploy turns out wrong on any host gets no figures.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import contenders, table
from bench.contenders import Contender, tail
from bench.disks import Disks
from bench.job import HOME, Job, Wrong
from bench.measure import CORES, Run
from tests.fleet.fleet import Fleet

#: More than this share of the machine used by nobody who takes part: the run is done once more.
NOISE = 0.25
RETRIES = 2


@dataclass
class Row:
    """All runs of one contender on one number of hosts."""

    contender: str
    title: str
    hosts: int
    runs: list[Run] = field(default_factory=list)
    #: Seconds from the verdict to the restored old version, one a failing run.
    restored: list[float] = field(default_factory=list)
    #: What a failing run took as a whole.
    failing: list[Run] = field(default_factory=list)
    wrong: str = ""


@dataclass
class Results:
    """Everything that one call of the benchmark measured."""

    command: str
    date: str
    machine: str
    versions: dict[str, str]
    job: str
    disks: str = ""
    rows: list[Row] = field(default_factory=list)
    cold: dict[str, list[float]] = field(default_factory=dict)
    plans: list[str] = field(default_factory=list)

    def row(self, contender: str, hosts: int) -> Row | None:
        """The row of a contender, when it has figures."""
        for row in self.rows:
            if (row.contender, row.hosts) == (contender, hosts) and not row.wrong:
                return row
        return None


def main(argv: list[str]) -> int:
    """Measure what is asked for; exit code 1 when a contender did it wrong."""
    options = _options(argv)
    chosen = [kind for kind in contenders.ALL if kind.name in options.contenders]
    contenders.install()
    HOME.mkdir(parents=True, exist_ok=True)
    with (
        Disks(HOME, images=not options.machine_disk) as disks,
        Fleet.up(0, options.name) as fleet,
    ):
        job = Job(fleet, disks)  # may need the package index, which is outside
        fleet.enter()
        results = _results(argv, job, chosen)
        results.disks = _disks(options.machine_disk)
        for count in options.hosts:
            job.use(count)
            for kind in chosen:
                row = measure(kind(job), options.runs, options.failing_runs)
                results.rows.append(row)
                print(table.progress(row), flush=True)
    if not options.only_deploys:
        results.cold = cold_starts()
        results.plans = plan_times()
    print(table.markdown(results))
    if options.write:
        table.write(results, options.write)
    return 1 if any(row.wrong for row in results.rows) else 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.deploy", description=__doc__)
    names = [kind.name for kind in contenders.ALL]
    parser.add_argument(
        "--hosts",
        type=lambda text: sorted({int(word) for word in text.split(",")}),
        default=[1, 10, 40],
        help="numbers of hosts (1,10,40)",
    )
    parser.add_argument("--runs", type=int, default=3, help="good deploys of each (3)")
    parser.add_argument("--failing-runs", type=int, default=1, help="failing ones of each (1)")
    parser.add_argument(
        "--contenders",
        type=lambda text: text.split(","),
        default=names,
        help=f"who takes part ({','.join(names)})",
    )
    parser.add_argument("--only-deploys", action="store_true", help="no start-up and plan times")
    parser.add_argument(
        "--machine-disk", action="store_true", help="the hosts share this machine's file system"
    )
    parser.add_argument("--name", default="bench", help="of the fleet (bench)")
    parser.add_argument(
        "--write",
        type=Path,
        nargs="?",
        const=table.DOCUMENT,
        help="put the tables into docs/performance.md, or into another file",
    )
    options = parser.parse_args(argv)
    unknown = set(options.contenders) - set(names)
    if unknown:
        parser.error(f"no contender {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return options


def measure(contender: Contender, runs: int, failing: int) -> Row:
    """All runs of one contender; a deploy that is wrong takes the row's figures away."""
    row = Row(contender.name, contender.title, len(contender.job.hosts))
    try:
        for number in range(runs):
            row.runs.append(_quiet_run(contender, number))
        if contender.can_rescue:
            for _ in range(failing):
                _failing_run(contender, row)
    except (Wrong, RuntimeError) as error:
        row.wrong = str(error)
    return row


def _quiet_run(contender: Contender, number: int) -> Run:
    """One good deploy; repeated when the neighbours were loud, and the quietest is taken."""
    live, target = ("v1", "v2") if number % 2 == 0 else ("v2", "v1")
    found: list[Run] = []
    for _ in range(1 + RETRIES):
        contender.make_ready(live, target)
        contender.job.settle()
        done = contender.deploy(target)
        if done.code != 0:
            raise Wrong(f"the deploy failed: {tail(done)}")
        contender.job.verify(target)
        print(f"  {contender.name} {len(contender.job.hosts)}: {table.short(done)}", flush=True)
        found.append(done)
        if _noise(done) <= NOISE:
            break
    return min(found, key=_noise)


def _noise(done: Run) -> float:
    return done.elsewhere / (done.wall * CORES)


def _failing_run(contender: Contender, row: Row) -> None:
    contender.make_ready("v1", "sick")
    contender.job.settle()
    done = contender.deploy("sick", rescue=True)
    if done.code == 0:
        raise Wrong("the deploy of a sick version succeeded")
    contender.job.verify("v1")
    seconds = contender.restored_after(done)
    if seconds is None:
        raise Wrong(f"it does not say when it restored: {tail(done)}")
    print(
        f"  {contender.name} {row.hosts} failing: {done.wall:.1f} s, restored {seconds:.2f} s "
        f"after the verdict (exit {done.code})",
        flush=True,
    )
    row.failing.append(done)
    row.restored.append(seconds)


def cold_starts(times: int = 20) -> dict[str, list[float]]:
    """Seconds that small commands take, whole processes, taking turns."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "deployguard --help": [sys.executable, "-m", "deployguard", "--help"],
        "deployguard --version": [sys.executable, "-m", "deployguard", "--version"],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(times):
        for name, argv in commands.items():
            began = time.perf_counter()
            subprocess.run(argv, cwd=contenders.CHECKOUT, check=True, capture_output=True)
            found[name].append(time.perf_counter() - began)
    return found


def plan_times() -> list[str]:
    """What ``bench/plan_1000.py`` prints, in a process of its own as a user would have it."""
    script = Path(__file__).with_name("plan_1000.py")
    argv = [sys.executable, str(script), "1000"]
    env = {**os.environ, "PYTHONPATH": str(contenders.CHECKOUT)}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=env)
    return done.stdout.splitlines()


def _results(argv: list[str], job: Job, chosen: list[type[Contender]]) -> Results:
    release = job.releases["v1"]
    words = " ".join(["python -m bench.deploy", *argv])
    return Results(
        command=words,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        machine=_machine(),
        versions={kind.title: kind(job).version() for kind in chosen},
        job=f"{release.files:,} files, {release.size / 1e6:.0f} MB "
        f"({release.archive.stat().st_size / 1e6:.1f} MB packed)",
    )


def _disks(machine: bool) -> str:
    if not machine:
        return "every host and the controller on a journalled ext4 of its own, in an image"
    found = subprocess.run(
        ["findmnt", "-no", "FSTYPE,SOURCE", "-T", str(HOME)], check=True, capture_output=True
    )
    kind, device = found.stdout.decode().split()
    journals = [entry.name for entry in Path("/proc/fs/jbd2").glob(f"{Path(device).name}-*")]
    text = f"all on the machine's own {kind}"
    return f"{text} without a journal" if kind == "ext4" and not journals else text


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return (
        f"{CORES} cores ({models[0] if models else platform.machine()}), {memory:.0f} GiB, "
        f"{system}, Linux {platform.release()}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
