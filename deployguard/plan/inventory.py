"""`hosts:` from a file: a mapping of hosts, or an inventory in Ansible's YAML form.

The result is a tree of nodes with the shape of an inline ``hosts:`` block, whose places point into
the inventory file; so the model and its mistakes do not know the difference.

Of an Ansible inventory everything that says how to reach a host is used; other variables become
``vars`` of the host. Passwords are left out: deployguard signs in with keys or an agent, and uses
``sudo -n``. ``group_vars`` and ``host_vars`` directories are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from deployguard.plan.document import Document, Entry, Finding, Node, Path, Place
from deployguard.plan.suggestion import did_you_mean

__all__ = ["hosts_from"]

MAX_HOSTS = 20_000

_GROUP_KEYS = ("hosts", "children", "vars")
# Ansible's variables and ours; the first of several names that is set wins.
_CONNECTION = {
    "address": ("ansible_host", "ansible_ssh_host"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "identity_file": ("ansible_ssh_private_key_file", "ansible_private_key_file"),
    "become": ("ansible_become",),
    "python": ("ansible_python_interpreter",),
    "drill": ("deployguard_drill",),
}
_SSH_ONLY = ("port", "user", "identity_file", "address")
_SSH = frozenset(("ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh"))
_LOCAL = frozenset(("local", "ansible.builtin.local"))
_RANGE = re.compile(r"\[([0-9]+|[A-Za-z]):([0-9]+|[A-Za-z])(?::([0-9]+))?\]")

Variables = dict[str, Entry]


def hosts_from(document: Document) -> tuple[Node, list[Finding]]:
    """The hosts of an inventory file, and what is wrong with it.

    YAML 1.1 surprises count as mistakes in our own form only: Ansible's files are written for
    Ansible's reading, in which ``ansible_become: yes`` is true.
    """
    root = document.root
    findings = list(document.findings)
    if not isinstance(root.value, dict):
        findings.append(
            Finding(
                (),
                "is not an inventory in YAML",
                "write {web1: {address: …}}; for an INI inventory run "
                "ansible-inventory -i FILE --list --yaml",
                place=root.place,
            )
        )
        return Node(root.place, {}), findings
    if root.value.keys() == {"hosts"}:
        # A plan's own block, moved to a file together with its key.
        return root.value["hosts"].node, findings + document.surprises
    if not _is_ansible(root.value):
        return root, findings + document.surprises
    reader = _Ansible(root)
    hosts = reader.hosts()
    return Node(root.place, hosts), findings + reader.findings


def _is_ansible(top: Variables) -> bool:
    return "all" in top or any(
        isinstance(entry.node.value, dict)
        and not entry.node.value.keys().isdisjoint(("hosts", "children"))
        for entry in top.values()
    )


class _Group:
    """A group as it is put together from every place that mentions it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.variables: Variables = {}
        self.hosts: dict[str, None] = {}
        self.parents: list[str] = []


class _Ansible:
    def __init__(self, root: Node) -> None:
        self.findings: list[Finding] = []
        self._root = root
        self._groups: dict[str, _Group] = {}
        # Of each host: the place of its first mention, and the variables it is given itself.
        self._hosts: dict[str, tuple[Place, Variables]] = {}

    def hosts(self) -> Variables:
        for name, entry in self._root.value.items():
            self._group(name, entry, (name,), parent=None)
        depths = self._depths()
        belongs: dict[str, list[str]] = {name: [] for name in self._hosts}
        for group in self._groups.values():
            for host in group.hosts:
                belongs[host].append(group.name)
        return {
            name: Entry(place, self._host(name, place, own, belongs[name], depths))
            for name, (place, own) in self._hosts.items()
        }

    def _find(self, entry: Entry, path: Path, message: str, hint: str = "") -> None:
        self.findings.append(Finding(path, message, hint, place=entry.node.place))

    def _mapping(self, entry: Entry, path: Path, what: str) -> Variables:
        value = entry.node.value
        if isinstance(value, dict):
            return value
        if value is not None:
            self._find(entry, path, f"expected {what}, found something else")
        return {}

    def _group(self, name: str, entry: Entry, path: Path, parent: str | None) -> None:
        group = self._groups.setdefault(name, _Group(name))
        if parent is not None and parent not in group.parents:
            group.parents.append(parent)
        block = self._mapping(entry, path, "a group with hosts, children or vars")
        for key, inner in block.items():
            below = (*path, key)
            if key == "hosts":
                for pattern, host in self._mapping(inner, below, "a mapping of hosts").items():
                    self._add_hosts(group, pattern, host, (*below, pattern))
            elif key == "vars":
                group.variables.update(self._mapping(inner, below, "a mapping of variables"))
            elif key == "children":
                for child, its in self._mapping(inner, below, "a mapping of groups").items():
                    self._group(child, its, (*below, child), parent=name)
            else:
                hint = did_you_mean(key, _GROUP_KEYS, among="a group has")
                self.findings.append(
                    Finding(below, "unknown key in a group", hint, place=inner.place)
                )

    def _add_hosts(self, group: _Group, pattern: str, entry: Entry, path: Path) -> None:
        own = self._mapping(entry, path, "variables of the host")
        try:
            names = list(_expand(pattern, MAX_HOSTS - len(self._hosts)))
        except ValueError as error:
            self.findings.append(Finding(path, str(error), place=entry.place))
            return
        for name in names:
            place, variables = self._hosts.get(name, (entry.place, {}))
            self._hosts[name] = place, variables | own
            group.hosts[name] = None

    def _depths(self) -> dict[str, int]:
        """How far each group is from the top; the deeper one's variables win."""
        depths = {name: 0 if name == "all" else 1 for name in self._groups}
        changed, rounds = True, 0
        while changed:
            changed = False
            rounds += 1
            for group in self._groups.values():
                deepest = max((depths[parent] for parent in group.parents), default=0)
                if group.name != "all" and depths[group.name] < deepest + 1:
                    depths[group.name] = deepest + 1
                    changed = True
            if rounds > len(self._groups) + 1:
                place = self._root.place
                self.findings.append(
                    Finding((), "groups are children of one another in a circle", place=place)
                )
                break
        return depths

    def _ancestors(self, names: list[str]) -> set[str]:
        found: set[str] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            if name not in found:
                found.add(name)
                pending += self._groups[name].parents
        return found

    def _host(
        self, name: str, place: Place, own: Variables, groups: list[str], depths: dict[str, int]
    ) -> Node:
        member = sorted(self._ancestors(groups), key=lambda group: (depths[group], group))
        variables: Variables = dict(self._groups["all"].variables) if "all" in self._groups else {}
        for group in member:
            variables.update(self._groups[group].variables)
        variables.update(own)
        fields = self._fields(name, variables)
        named = [group for group in member if group not in ("all", "ungrouped")]
        if named:
            items = [Node(place, group) for group in named]
            fields["groups"] = Entry(place, Node(place, items))
        free = {
            key: entry
            for key, entry in variables.items()
            if not key.startswith("ansible_") and key not in _CONNECTION["drill"]
        }
        if free:
            fields["vars"] = Entry(place, Node(place, free))
        return Node(place, fields)

    def _fields(self, name: str, variables: Variables) -> Variables:
        """Our fields from Ansible's connection variables."""
        fields: Variables = {}
        for field, spellings in _CONNECTION.items():
            for spelling in spellings:
                entry = variables.get(spelling)
                if entry is not None and entry.node.value is not None:
                    fields[field] = entry
                    break
        python = fields.get("python")
        if python is not None and str(python.node.value).startswith("auto"):
            del fields["python"]
        connection = variables.get("ansible_connection")
        kind = str(connection.node.value) if connection is not None else ""
        if connection is not None and kind in _LOCAL:
            place = connection.node.place
            fields["transport"] = Entry(place, Node(place, "local"))
            # Often inherited from a group of remote hosts, and without meaning here.
            for field in _SSH_ONLY:
                fields.pop(field, None)
        elif connection is not None and kind not in _SSH:
            self._find(
                connection,
                ("hosts", name),
                f"the connection {kind} cannot be used",
                "deployguard reaches hosts by ssh or local",
            )
        self._refuse_other_become(name, variables)
        self._ssh_arguments(variables, fields)
        return fields

    def _refuse_other_become(self, name: str, variables: Variables) -> None:
        become = variables.get("ansible_become")
        if become is None or not become.node.value:
            return
        for key, only in (("ansible_become_user", "root"), ("ansible_become_method", "sudo")):
            entry = variables.get(key)
            if entry is not None and entry.node.value not in (None, only):
                self._find(
                    entry,
                    ("hosts", name),
                    f"{key} {entry.node.value} cannot be used",
                    "deployguard becomes root through sudo -n",
                )

    def _ssh_arguments(self, variables: Variables, fields: Variables) -> None:
        """The jump host and the host key policy; the rest of the arguments tune OpenSSH."""
        for key in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
            entry = variables.get(key)
            if entry is None or not isinstance(entry.node.value, str):
                continue
            place, text = entry.node.place, entry.node.value
            jump = re.search(r"(?:ProxyJump[= ]|-J *)([^\s'\"]+)", text)
            if jump:
                fields["jump"] = Entry(place, Node(place, jump[1]))
            checking = re.search(r"StrictHostKeyChecking[= ](no|off|accept-new)", text)
            if checking:
                policy = "accept_new" if checking[1] == "accept-new" else "off"
                fields["host_key_checking"] = Entry(place, Node(place, policy))


def _expand(pattern: str, room: int) -> Iterator[str]:
    """``web[01:10].example.com`` as Ansible counts it: both ends included, zeros kept."""
    match = _RANGE.search(pattern)
    if match is None:
        if room < 1:
            raise ValueError(f"more than {MAX_HOSTS} hosts")
        yield pattern
        return
    first, last, step = match[1], match[2], int(match[3] or 1)
    digits = first.isdigit()
    if digits != last.isdigit() or step < 1:
        raise ValueError(f"{match[0]} is not a range; write [01:10] or [a:f]")
    start, end = (int(first), int(last)) if digits else (ord(first), ord(last))
    if end < start:
        raise ValueError(f"{match[0]} ends before it starts")
    if (end - start) // step >= room:
        raise ValueError(f"{match[0]} gives more than {MAX_HOSTS} hosts")
    before, after = pattern[: match.start()], pattern[match.end() :]
    for number in range(start, end + 1, step):
        text = str(number).zfill(len(first) if first.startswith("0") else 0)
        middle = text if digits else chr(number)
        for name in _expand(f"{before}{middle}{after}", room):
            room -= 1
            yield name
