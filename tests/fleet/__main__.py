"""A fleet by hand: `python -m tests.fleet up 4`, look around, `python -m tests.fleet down`."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.fleet import fleet as fleets
from tests.fleet.fleet import Fleet, FleetBusy
from tests.fleet.machine import FleetUnavailable


def main(argv: list[str]) -> int:
    """Run one command; the exit code is 0, 1 for a failure or that of the command executed."""
    # Before argparse, which would take the options of the command to execute for its own.
    command: list[str] = []
    if "--" in argv:
        split = argv.index("--")
        argv, command = argv[:split], argv[split + 1 :]
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="boot hosts and leave them running")
    up.add_argument("count", type=int, nargs="?", default=4)
    up.add_argument("--with", dest="packages", action="append", default=[], metavar="PACKAGE")
    down = verbs.add_parser("down", help="remove a fleet and everything it left")
    down.add_argument("--force", action="store_true", help="even if a running process owns it")
    down.add_argument("--all", action="store_true", help="every fleet on this machine")
    verbs.add_parser("status", help="the fleets on this machine")
    shell = verbs.add_parser("shell", help="a shell inside the fleet's network")
    execute = verbs.add_parser("exec", help="one command inside the fleet's network: exec -- CMD")
    for verb in (up, down, shell, execute):
        verb.add_argument("--name", default="default")
    options = parser.parse_args(argv)
    try:
        match options.verb:
            case "up":
                return _up(options.name, options.count, options.packages)
            case "down":
                names = fleets.names() if options.all else [options.name]
                for name in names:
                    fleets.remove(name, force=options.force)
                return 0
            case "status":
                return _status()
            case "shell":
                return _inside(options.name, [os.environ.get("SHELL", "/bin/bash")])
            case _:
                return _inside(options.name, command) if command else parser.error("exec -- CMD")
    except (FleetUnavailable, FleetBusy, LookupError, ValueError) as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1


def _up(name: str, count: int, packages: list[str]) -> int:
    began = time.monotonic()
    fleet = Fleet.up(count, name, kept=True, packages=packages)
    print(f"# {count} hosts in {time.monotonic() - began:.1f} s; key {fleet.client_key}")
    this = f"python -m tests.fleet {{}} --name {name}"
    for host in fleet.hosts:
        ssh = f"ssh -F {fleet.ssh_config} {host.user}@{host.name}"
        print(f"# {host.address}  {this.format('exec')} -- {ssh}")
    print(f"# known hosts: {fleet.known_hosts}; the hosts see this side as {fleet.controller}")
    print(f"# inside the network: {this.format('shell')}; end: {this.format('down')}")
    print(fleet.plan_hosts(), end="")
    return 0


def _status() -> int:
    for name in fleets.names():
        try:
            fleet = Fleet.attach(name)
        except LookupError:
            state = "booting" if fleets.owned(name) else "abandoned; the next up removes it"
            print(f"{name}: {state}")
            continue
        kind = "kept" if fleet.kept else "owned" if fleets.owned(name) else "abandoned"
        running = sum(host.running for host in fleet.hosts)
        print(f"{name}: {kind}, {running} of {len(fleet.hosts)} hosts running")
    return 0


def _inside(name: str, command: list[str]) -> int:
    Fleet.attach(name).enter()
    sys.stdout.flush()
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
