"""Compose stacks on a real engine: what only shows there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployguard.cli import diagnosis
from deployguard.errors import ActionFailed
from deployguard.plan.model import Plan
from deployguard.testing import DriverCase, Trial
from tests.drivers.stacks import BASE, compose_case, plugin_on
from tests.fleet import Fleet
from tests.fleet import Host as Machine

Write = Callable[[str, str], None]

LOOP = "trap 'exit 0' TERM; while :; do sleep 1 & wait $$!; done"

#: Three services, one after the other; `store` says unhealthy, and has for years. `api` sees
#: whether `queue` was found healthy before.
CHAIN = f"""\
services:
  store:
    image: {BASE}
    command: [sh, -c, "{LOOP}"]
    healthcheck: {{test: [CMD, /bin/false], interval: 1s, retries: 1}}
  queue:
    image: {BASE}
    command: [sh, -c, "rm -f /flag/checked; {LOOP}"]
    healthcheck: {{test: [CMD, touch, /flag/checked], interval: 1s}}
    volumes: [flag:/flag]
    depends_on: [store]
  api:
    image: {BASE}
    command: [sh, -c, "ls /flag > /found; {LOOP}"]
    volumes: [flag:/flag]
    depends_on: {{queue: {{condition: service_healthy}}, store: {{condition: service_healthy}}}}
volumes: {{flag: {{}}}}
"""


class Stack:
    """One stack on the host with the engines, and its containers as the engine sees them."""

    def __init__(
        self, fleet: Fleet, machine: Machine, directory: Path, tool: str = "docker-compose"
    ) -> None:
        self.case = compose_case(fleet, machine, directory, tool)
        self.machine = machine
        self.directory = directory
        self.name = Path(self.case.component("v1").path).name

    def compose(self, *words: str) -> None:
        """As a person would."""
        argv = ["docker-compose", "--project-directory", f"/srv/{self.name}", "-p", self.name]
        self.machine.run([*argv, "-f", f"/srv/{self.name}/docker-compose.yml", *words])

    def containers(self) -> dict[str, dict[str, Any]]:
        """By service, what `docker inspect` says."""
        label = f"label=com.docker.compose.project={self.name}"
        ids = self.machine.run(["docker", "ps", "-aq", "--filter", label]).stdout.decode().split()
        if not ids:
            return {}
        found = json.loads(self.machine.run(["docker", "inspect", *ids]).stdout)
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def write(self, version: str, text: str) -> None:
        """The compose file of a version."""
        (self.case.release(version) / "docker-compose.yml").write_text(text)

    def down(self) -> None:
        """Leave nothing to the next test."""
        for one in self.containers().values():
            self.machine.run(["docker", "rm", "-f", "-v", one["Id"]])

    def switched(self, version: str) -> Trial:
        """A deploy that came as far as its checks."""
        trial = Trial(self.case, version)
        trial.switch()
        return trial


@pytest.fixture
def stack(engines: Fleet, tmp_path: Path) -> Iterator[Stack]:
    """A stack of this test's own."""
    made = Stack(engines, engines.hosts[0], tmp_path)
    yield made
    made.down()


def _restore(trial: Trial) -> None:
    with trial:
        result = trial.restore()
        assert result["state"] == "restored", (result["failures"], result["differences"])


def _commit(trial: Trial) -> None:
    with trial:
        trial.session.call("prepare")
        trial.session.call("commit")


def test_a_restore_is_not_held_up_by_what_was_never_healthy(stack: Stack) -> None:
    """`up` would never start `api` again: it waits for a health that was not there before.

    Those that were healthy are waited for, those that were not are not, and all start in order.
    """
    lenient = CHAIN.replace(
        "store: {condition: service_healthy}", "store: {condition: service_started}"
    )
    assert lenient != CHAIN
    stack.write("v1", lenient)
    _commit(stack.switched("v1"))
    stack.write("v2", f"services: {{other: {{image: {BASE}, command: [sleep, '100']}}}}\n")
    # The file that is live now is stricter than what runs, as somebody left it.
    stack.machine.write(f"/srv/{stack.name}/docker-compose.yml", CHAIN)
    before = stack.containers()
    trial = stack.switched("v2")
    assert stack.containers()["other"]["State"]["Running"]
    _restore(trial)
    after = stack.containers()
    assert set(after) == set(before) == {"store", "queue", "api"}
    assert all(one["State"]["Running"] for one in after.values())
    started = [after[name]["State"]["StartedAt"] for name in ("store", "queue", "api")]
    assert started == sorted(started)
    found = stack.machine.run(["docker", "exec", after["api"]["Id"], "cat", "/found"])
    assert found.stdout == b"checked\n", "api started before queue was healthy"


def test_the_very_images_that_ran(stack: Stack) -> None:
    """Also where the name of one led elsewhere before the deploy, and nobody had noticed."""
    stack.case.deploy("v1")
    name = f"{stack.name}-web"
    ran = stack.containers()["web"]["Image"]
    stack.machine.run(["docker", "tag", BASE, name])
    elsewhere = stack.machine.run(["docker", "image", "inspect", "-f", "{{.Id}}", name]).stdout
    trial = stack.switched("v2")
    assert stack.containers()["web"]["Image"] not in (ran, elsewhere.decode().strip())
    # What nobody holds is pruned, as a nightly job would.
    stack.machine.run(["docker", "image", "prune", "--force"])
    _restore(trial)
    stack.case.await_served("v1")
    assert stack.containers()["web"]["Image"] == ran
    now = stack.machine.run(["docker", "image", "inspect", "-f", "{{.Id}}", name]).stdout
    assert now == elsewhere


WITH_DATA = f"""\
services:
  data:
    image: {BASE}
    command: [sh, -c, "[ -e /data/orders ] || echo 1 > /data/orders; {LOOP}"]
    volumes: [/data]
"""
WITHOUT_DATA = f"services: {{front: {{image: {BASE}, command: [sleep, '100']}}}}\n"


def _orders(stack: Stack) -> str:
    identifier = stack.containers()["data"]["Id"]
    done = stack.machine.run(["docker", "exec", identifier, "cat", "/data/orders"])
    return done.stdout.decode().strip()


def test_what_is_in_an_anonymous_volume_survives(stack: Stack) -> None:
    """A service that the new version does not have goes with the commit, and not before it."""
    stack.write("v1", WITH_DATA)
    stack.write("v2", WITHOUT_DATA)
    _commit(stack.switched("v1"))
    identifier = stack.containers()["data"]["Id"]
    stack.machine.run(["docker", "exec", identifier, "sh", "-c", "echo 7 > /data/orders"])
    trial = stack.switched("v2")
    assert not stack.containers()["data"]["State"]["Running"]
    with trial:
        assert trial.check(soak=1.0), "what is stopped and no part of the new stack is no failure"
        assert trial.restore()["state"] == "restored"
    assert set(stack.containers()) == {"data"}
    assert _orders(stack) == "7"
    _commit(stack.switched("v2"))
    assert set(stack.containers()) == {"front"}


def test_one_that_was_stopped_stays_stopped(stack: Stack) -> None:
    """Its container comes back all the same."""
    two = "services: {}\n".format(
        {name: {"image": BASE, "command": ["sleep", "100"]} for name in ("off", "on")}
    )
    stack.write("v1", two)
    stack.write("v2", two.replace("100", "200"))
    _commit(stack.switched("v1"))
    stack.machine.run(["docker", "stop", "-t", "0", stack.containers()["off"]["Id"]])
    trial = stack.switched("v2")
    assert stack.containers()["off"]["State"]["Running"]
    _restore(trial)
    found = stack.containers()
    assert {name: one["State"]["Running"] for name, one in found.items()} == {
        "off": False,
        "on": True,
    }
    assert {tuple(one["Args"]) for one in found.values()} == {("100",)}


def test_networks_of_the_trial_go(stack: Stack) -> None:
    """What the new file brought along is gone; what was there is there."""
    plain = f"services: {{front: {{image: {BASE}, command: [sleep, '100']}}}}\n"
    stack.write("v1", plain)
    more = f"services: {{front: {{image: {BASE}, command: [sleep, '100'], networks: [inner]}}}}\n"
    stack.write("v2", more + "networks: {inner: {}}\n")
    _commit(stack.switched("v1"))
    _restore(stack.switched("v2"))
    listed = stack.machine.run(["docker", "network", "ls", "--format", "{{.Name}}"]).stdout.decode()
    mine = [name for name in listed.split() if name.startswith(stack.name)]
    assert mine == [f"{stack.name}_default"]


def test_the_old_environment(stack: Stack, engines: Fleet) -> None:
    """The old stack is started with the environment that it was started with, not the plan's."""
    text = f"services: {{front: {{image: {BASE}, command: [sleep, '$RELEASE']}}}}\n"
    for version in ("v1", "v2"):
        stack.write(version, text)
    given = stack.case

    def component(version: str) -> Any:
        plain = given.component(version).model_dump(by_alias=True)
        plain["service"]["compose"]["env"] = {"RELEASE": {"v1": "100", "v2": "200"}[version]}
        return type(given.component(version)).model_validate(plain)

    stack.case = DriverCase(**{**vars(given), "component": component})
    _commit(stack.switched("v1"))
    trial = stack.switched("v2")
    assert stack.containers()["front"]["Args"] == ["200"]
    _restore(trial)
    assert stack.containers()["front"]["Args"] == ["100"]


def test_another_tool_from_now_on(stack: Stack) -> None:
    """The new version is started with the plan's; the old one comes back with its own."""
    plugin_on(stack.machine)
    given = stack.case
    tools = {"v1": "docker-compose", "v2": "docker compose"}

    def component(version: str) -> Any:
        plain = given.component(version).model_dump(by_alias=True)
        plain["service"]["compose"]["tool"] = tools[version]
        return type(given.component(version)).model_validate(plain)

    stack.case = DriverCase(**{**vars(given), "component": component})
    stack.case.deploy("v1")
    old = stack.containers()["web"]["Name"]
    trial = stack.switched("v2")
    assert stack.containers()["web"]["Name"] != old, "the two name containers in different ways"
    _restore(trial)
    assert stack.containers()["web"]["Name"] == old
    stack.case.await_served("v1")
    _commit(stack.switched("v2"))
    stack.case.await_served("v2")


def _refused(stack: Stack) -> str:
    before = stack.containers()
    with pytest.raises(ActionFailed) as caught:
        Trial(stack.case, "v2")
    assert caught.value.kind == "refused"
    assert stack.containers() == before
    return f"{caught.value.reason} ({caught.value.hint})"


def test_a_live_file_that_is_broken_is_refused(stack: Stack) -> None:
    """Nothing could be brought back with it."""
    stack.case.deploy("v1")
    stack.machine.write(f"/srv/{stack.name}/docker-compose.yml", "services: [")
    said = _refused(stack)
    assert f"the compose file that is live in /srv/{stack.name} is no good" in said
    assert "mend it there" in said


def test_a_new_file_that_the_tool_refuses(stack: Stack) -> None:
    """Is found when the tree is staged: one message, and nothing was touched."""
    stack.case.deploy("v1")
    before = stack.containers()
    stack.write("v2", f"services: {{web: {{image: {BASE}, ports: [nonsense]}}}}\n")
    with Trial(stack.case, "v2") as trial:
        with pytest.raises(ActionFailed, match="the compose file of the new version is no") as no:
            trial.arm()
        assert no.value.kind == "refused" and "services.web.ports" in no.value.reason
        assert trial.session.call("abort")["state"] == "aborted"
    assert stack.containers() == before


def test_a_new_file_that_is_not_whole_before_the_swap(stack: Stack) -> None:
    """What the host keeps may belong to it: the tool reads it after the swap, and it goes back."""
    component = stack.case.component
    kept = {"keep": (".env",)}
    stack.case = replace(stack.case, component=lambda v: component(v).model_copy(update=kept))
    stack.case.deploy("v1")
    images = {name: one["Image"] for name, one in stack.containers().items()}
    stack.write("v2", f"services: {{web: {{image: {BASE}, ports: [nonsense]}}}}\n")
    with Trial(stack.case, "v2") as trial:
        with pytest.raises(ActionFailed, match="read the compose file and make the images"):
            trial.switch()
        assert trial.restore()["state"] == "restored"
    after = stack.containers()
    assert {name: one["Image"] for name, one in after.items()} == images
    assert all(one["State"]["Running"] for one in after.values())


def _doctor(stack: Stack) -> tuple[str, str]:
    """What `doctor` says of the stack."""
    component = stack.case.component("v1").model_dump(by_alias=True, exclude_none=True)
    data = {"name": "x", "version": "v1", "hosts": {"web1": {}}, "components": {"app": component}}
    plan = Plan.model_validate(data)
    with stack.case.connect() as session:
        (answer,) = diagnosis._stacks("web1", plan, session)
    return answer.status, answer.message


def test_a_daemon_that_is_down_is_refused(stack: Stack) -> None:
    """With its own words, and the mend; `doctor` knows it before."""
    stack.case.deploy("v1")
    assert _doctor(stack) == ("ok", "1 of 1 services run")
    units = ["docker.socket", "docker.service"]
    stack.machine.run(["systemctl", "stop", *units])
    try:
        with pytest.raises(ActionFailed, match="Is the docker daemon running") as caught:
            Trial(stack.case, "v2")
        assert caught.value.kind == "refused"
        assert "systemctl start docker" in caught.value.hint
        status, message = _doctor(stack)
        assert status == "failed" and "Is the docker daemon running" in message
    finally:
        stack.machine.run(["systemctl", "start", *units])


WITH_CONFIG = f"""\
services:
  front:
    image: {BASE}
    command: [sh, -c, "cat /note > /said; {LOOP}"]
    environment: {{VERSION: VERSION_HERE}}
    configs: [{{source: note, target: /note}}]
configs: {{note: {{content: "from VERSION_HERE"}}}}
"""


def test_what_the_new_tool_puts_into_a_container(engines: Fleet, tmp_path: Path) -> None:
    """A config that stands in the file is there when the program starts, and so after a restore."""
    plugin_on(engines.hosts[0])
    stack = Stack(engines, engines.hosts[0], tmp_path, "docker compose")
    for version in ("v1", "v2"):
        stack.write(version, WITH_CONFIG.replace("VERSION_HERE", version))

    def said() -> str:
        argv = ["docker", "exec", stack.containers()["front"]["Id"], "cat", "/said"]
        return stack.machine.run(argv).stdout.decode()

    try:
        _commit(stack.switched("v1"))
        assert said() == "from v1"
        trial = stack.switched("v2")
        assert said() == "from v2"
        _restore(trial)
        assert said() == "from v1"
    finally:
        stack.down()
