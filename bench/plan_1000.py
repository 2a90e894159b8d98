"""How long a plan for 1,000 hosts takes to load and validate, inline and from an inventory.

Run: ``python bench/plan_1000.py [HOSTS]``. The first figure of each kind includes the imports, as
a command line sees them; the second is the load alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

COMPONENT = """\
components:
  backend:
    artifact: dist/backend-{{ version }}.tar.gz
    path: /srv/backend
    service: {systemd: backend.service}
    checks:
      - process: {}
      - http: {url: "http://127.0.0.1:3000/health", json: {version: "{{ version }}"}}
"""

LOAD = """\
import sys, time
begun = time.perf_counter()
from deployguard.plan import load
plan = load(sys.argv[1])
cold = time.perf_counter() - begun
begun = time.perf_counter()
load(sys.argv[1])
print(f"{cold:.3f} s with imports, {time.perf_counter() - begun:.3f} s without", end="")
assert len(plan.hosts) == int(sys.argv[2])
"""


def _inline(hosts: int) -> str:
    return "hosts:\n" + "".join(
        f"  web{n}.example.com:\n    address: 192.0.2.{n % 254 + 1}\n    user: deploy{n}\n"
        f"    port: 22\n    groups: [web, eu]\n"
        for n in range(hosts)
    )


def _ansible(hosts: int) -> str:
    return "all:\n  vars: {ansible_user: deploy}\n  children:\n    web:\n      hosts:\n" + "".join(
        f"        web{n}.example.com: {{ansible_port: {22 + n}}}\n" for n in range(hosts)
    )


def main() -> None:
    hosts = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    head = "name: shop\nversion: v1.2.4\nserial: [1, 10%, 100%]\n"
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "dist").mkdir()
        (base / "dist/backend-v1.2.4.tar.gz").touch()
        (base / "inventory.yaml").write_text(_ansible(hosts))
        for kind, block in (
            ("inline", _inline(hosts)),
            ("Ansible inventory", "hosts: inventory.yaml\n"),
        ):
            plan = base / "plan.yaml"
            plan.write_text(head + block + COMPONENT)
            timing = subprocess.run(
                [sys.executable, "-c", LOAD, str(plan), str(hosts)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            print(f"{hosts} hosts, {kind}: {timing}")


if __name__ == "__main__":
    main()
