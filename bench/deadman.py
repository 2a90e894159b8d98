"""How long a host is without its old version when its controller is killed.

Run as root: ``python -m bench.deadman --write``. A release that does not start is deployed, and the
controller is killed right after the switch of every host: nobody is left but the hosts. What is
counted is the time from the kill to the record of the restore, which is written when the old tree
is back, verified by hash, and its service has passed its checks. The clock is the hosts', which is
this machine's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.table import DOCUMENT
from deployguard.onhost.state.records import parse
from tests.crash.controllers import Controllers
from tests.crash.ground import STATE, Ground, make_releases, wait_for
from tests.fleet.fleet import Fleet

BEGIN = "<!-- bench-deadman: begin -->"
END = "<!-- bench-deadman: end -->"

#: The least that a plan may say.
LEASE = 5.0
#: What is aimed at, beside the lease.
TARGET = 3.0


def measure(ground: Ground) -> list[float]:
    """Seconds from the kill to each host's restore."""
    ground.number += 1
    ground.plan("bad")
    paused = [host.path("/var/tmp/paused") for host in ground.hosts]
    wait = {"point": "after switched", "action": "wait", "path": "/var/tmp/paused"}
    known = {host.name: set(ground.transactions(host)) for host in ground.hosts}
    run = ground.start("apply", faults={"hosts": {h.name: [wait] for h in ground.hosts}})
    wait_for(lambda: all(path.exists() for path in paused), "the switch")
    run.kill()
    killed = time.time()
    for path in paused:
        path.unlink()
    ground.end(run, ["v1"])
    seconds = []
    for host in ground.hosts:
        (mine,) = set(ground.transactions(host)) - known[host.name]
        records, _ = parse(host.path(f"{STATE}/transactions/{mine}/journal").read_bytes())
        restored = next(record for record in records if record["kind"] == "restored")
        seconds.append(restored["at"] - killed)
    return seconds


def table(rows: list[tuple[int, list[list[float]]]]) -> str:
    """The rows as the document has them."""
    lines = [
        f"Lease {LEASE:g} s; target: the lease and {TARGET:g} s more. Over all hosts of "
        f"{len(rows[0][1])} runs:",
        "",
        "| hosts | median | worst | after the lease | within the target |",
        "| ---: | ---: | ---: | ---: | --- |",
    ]
    for hosts, runs in rows:
        every = [seconds for run in runs for seconds in run]
        worst = max(every)
        lines.append(
            f"| {hosts} | {statistics.median(every):.2f} s | {worst:.2f} s "
            f"| {worst - LEASE:.2f} s | {'yes' if worst <= LEASE + TARGET else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def write(text: str, document: Path) -> None:
    """Replace what stands between the markers; everything else stays."""
    whole = document.read_text()
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{document} has no {BEGIN} … {END} to write between")
    document.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def main(argv: list[str]) -> int:
    """Measure; 0 when the target was met everywhere."""
    parser = argparse.ArgumentParser(prog="python -m bench.deadman", description=__doc__)
    parser.add_argument("--hosts", default="1,10", help="numbers of hosts, with commas")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", nargs="?", const=DOCUMENT, type=Path, metavar="DOCUMENT")
    options = parser.parse_args(argv)
    counts = [int(count) for count in options.hosts.split(",")]
    rows = []
    with (
        Fleet.up(max(counts), "bench-deadman") as fleet,
        tempfile.TemporaryDirectory() as directory,
    ):
        fleet.enter()
        with Controllers() as controllers:
            releases = make_releases(Path(directory) / "releases", "releases")
            for count in counts:
                ground = Ground(
                    fleet,
                    fleet.hosts[:count],
                    Path(directory) / str(count),
                    "releases",
                    controllers,
                    releases,
                    lease=LEASE,
                )
                ground.set_up()
                runs = []
                for _ in range(options.runs):
                    runs.append(measure(ground))
                    print(f"{count:>3} hosts: worst {max(runs[-1]):.2f} s", flush=True)
                rows.append((count, runs))
    text = table(rows)
    print(text)
    if options.write:
        write(text, options.write)
    worst = max(seconds for _, runs in rows for run in runs for seconds in run)
    return 0 if worst <= LEASE + TARGET else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
