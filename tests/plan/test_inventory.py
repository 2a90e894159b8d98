"""Hosts from a file: our own mapping, or Ansible's YAML inventory."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployguard.plan import Plan, load
from tests.plan.conftest import Mistakes

PLAN = """\
name: shop
version: v1
hosts: hosts.yaml
components:
  app:
    artifact: dist/app.tar.gz
    path: /srv/app
    checks: [{port: 80}]
"""

ANSIBLE = """\
all:
  vars: {ansible_user: deploy, colour: blue, ansible_password: hunter2}
  hosts:
    lone:
  children:
    web:
      vars: {ansible_become: yes, ansible_port: 2200, motto: "{{ anything }}"}
      hosts:
        web[08:10:2].example.com:
        web9: {ansible_host: 192.0.2.9, ansible_port: 22, colour: red}
      children: {canary: }
    canary:
      vars: {ansible_port: 2300}
      hosts: {web9: , "db-[a:c]": {ansible_python_interpreter: /opt/python3}}
    here:
      hosts:
        localhost: {ansible_connection: local, ansible_python_interpreter: auto_silent}
    jumped:
      vars:
        ansible_ssh_common_args: -o ProxyJump=ops@bastion -o StrictHostKeyChecking=accept-new
        ansible_ssh_private_key_file: ~/.ssh/deploy
      hosts: {inner: }
"""


def _load(folder: Path, inventory: str, plan: str = PLAN) -> Plan:
    (folder / "hosts.yaml").write_text(inventory)
    (folder / "plan.yaml").write_text(plan)
    return load(folder / "plan.yaml")


def test_ansible_inventory(folder: Path) -> None:
    """Groups, inherited variables, ranges and the ways to reach hosts are those of Ansible."""
    hosts = _load(folder, ANSIBLE).hosts
    assert list(hosts) == [
        "lone", "web08.example.com", "web10.example.com", "web9", "db-a", "db-b", "db-c",
        "localhost", "inner",
    ]  # fmt: skip
    assert hosts["lone"].user == "deploy"
    assert hosts["lone"].groups == ()
    assert hosts["lone"].vars == {"colour": "blue"}
    first = hosts["web08.example.com"]
    assert (first.port, first.become, first.groups) == (2200, True, ("web",))
    assert first.vars == {"colour": "blue", "motto": "{{ anything }}"}
    nine = hosts["web9"]
    assert (nine.address, nine.port, nine.vars["colour"]) == ("192.0.2.9", 22, "red")
    assert nine.groups == ("web", "canary")
    assert (hosts["db-b"].port, hosts["db-b"].python) == (2300, "/opt/python3")
    assert hosts["db-b"].groups == ("web", "canary")
    local = hosts["localhost"]
    assert (local.transport, local.user, local.python) == ("local", None, "python3")
    inner = hosts["inner"]
    assert (inner.jump, inner.host_key_checking) == ("ops@bastion", "accept_new")
    assert inner.identity_file == "~/.ssh/deploy"


def test_passwords_stay_out(folder: Path) -> None:
    """A password of an inventory is not carried into the plan."""
    assert "hunter2" not in repr(_load(folder, ANSIBLE))


def test_hosts_to_practise_on(folder: Path) -> None:
    """`deployguard_drill` marks a host, or a group of them, in an inventory that Ansible reads."""
    text = "lab: {vars: {deployguard_drill: true}, hosts: {a: , b: {deployguard_drill: false}}}\n"
    hosts = _load(folder, text).hosts
    assert (hosts["a"].drill, hosts["b"].drill, hosts["a"].vars) == (True, False, {})


def test_own_form(folder: Path) -> None:
    """A file with the same mapping as inline, with or without the key around it."""
    text = "web1: {address: a.example.com, groups: [web]}\nweb2:\n"
    plan = _load(folder, text)
    assert plan.hosts["web1"].groups == ("web",)
    assert plan.hosts["web2"].address is None
    wrapped = "hosts:\n  web1: {address: a.example.com, groups: [web]}\n  web2:\n"
    assert _load(folder, wrapped).hosts == plan.hosts


def test_name_of_the_file_is_a_template(folder: Path) -> None:
    """One plan, several environments: the inventory's name may hold any template."""
    plan = PLAN.replace("hosts.yaml", "'{{ vars.where }}.yaml'") + "vars: {where: hosts}\n"
    assert list(_load(folder, "web1:\n", plan).hosts) == ["web1"]


@pytest.mark.parametrize(
    ("inventory", "said"),
    [
        ("web1: {prot: 22}\n", 'hosts.yaml:1:8 hosts.web1.prot: unknown key; did you mean "port"?'),
        ("web1: {become: yes}\n", "hosts.yaml:1:16 hosts.web1.become: yes is read as true by some"),
        ("web1: {port: x}\n", 'hosts.yaml:1:14 hosts.web1.port: expected a whole number, found '),
        ("[web]\nweb1 ansible_host=x\n", "hosts.yaml:"),
        ("web1\n", "for an INI inventory run ansible-inventory -i FILE --list --yaml"),
        ("", "hosts.yaml:1:1 hosts: the file is empty"),
        ("{}\n", "3:1 hosts: there are no hosts"),
        ("all: {hosts: {a b: }}\n", '"a b" cannot be the name of a host'),
        ("all: {hosts: {a: {ansible_port: x}}}\n", 'hosts.yaml:1:33 hosts.a.port: expected a '),
        ("all: {hsots: {a: }}\n", 'unknown key in a group; did you mean "hosts"?'),
        ("all: {hosts: [a]}\n", "hosts.yaml:1:14 hosts: expected a mapping of hosts"),
        ("all: {hosts: {'w[3:1]': }}\n", "[3:1] ends before it starts"),
        ("all: {hosts: {'w[1:a]': }}\n", "[1:a] is not a range"),
        ("all: {hosts: {'w[1:99999]': }}\n", "[1:99999] gives more than 20000 hosts"),
        ("all: {hosts: {'w[1:200][1:200]': }}\n", "more than 20000 hosts"),
        ("all: {hosts: {a: {ansible_connection: winrm}}}\n", "the connection winrm cannot be used"),
        (
            "all: {hosts: {a: {ansible_become: true, ansible_become_user: app}}}\n",
            "ansible_become_user app cannot be used; deployguard becomes root through sudo -n",
        ),
        (
            "a: {children: {b: {children: {a: }}}, hosts: {x: }}\n",
            "groups are children of one another in a circle",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_it(inventory: str, said: str, folder: Path, mistakes: Mistakes) -> None:
    """A mistake in the inventory is shown in that file, and once."""
    (folder / "hosts.yaml").write_text(inventory)
    found = mistakes(PLAN)
    assert len(found) == 1
    assert said in found[0]


def test_missing_file(mistakes: Mistakes) -> None:
    """A file that is not there is a mistake of the plan, at its `hosts:`; nothing else is said."""
    text = PLAN + "    hosts: [web]\n"
    assert mistakes(text) == [
        '3:8 hosts: the inventory "hosts.yaml" cannot be read: no such file or directory'
    ]


def test_one_mistake_of_many_hosts(folder: Path, mistakes: Mistakes) -> None:
    """A wrong variable of a group is one mistake, however many hosts inherit it."""
    (folder / "hosts.yaml").write_text(
        "all: {vars: {ansible_port: ssh}, hosts: {'web[1:300]': }}\n"
    )
    assert len(mistakes(PLAN)) == 1
