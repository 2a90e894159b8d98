"""The playbooks: every one is valid, and does on a host what its comments say."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployguard.plan import load
from tests.fleet.fleet import Fleet
from tests.fleet.host import Host
from tests.playbooks.published import Published, served
from tests.playbooks.somebody import ROOT, somebody
from tests.releases import pack, small_release

PLAYBOOKS = ROOT / "playbooks"
#: What a build makes, beside the files that the playbook brings along.
BUILT: dict[str, list[str]] = {
    "chat": [],  # run by tests/incidents/test_chat.py
    "demo": ["releases/v1/server.py"],
    "irisx": ["dist/api-src-v25.tar.gz"],  # run by tests/incidents/test_rm_rf_src.py
    "notes": [],
    "orders": ["dist/orders-v1.5.0.tar.gz"],  # run by tests/incidents/test_containment.py
    "platform": ["platform/.git"],  # run by tests/incidents/test_force_merge.py
    # run by tests/incidents/test_connection_pool.py
    "portal": ["dist/backend-v1.2.5.tar.gz", "dist/frontend-v1.2.5.tar.gz"],
    "shop": ["dist/backend-v1.2.4.tar.gz", "dist/frontend/index.html"],
    "static": ["dist/site-v2.tar.gz"],
    "wiki": ["dist/wiki-v2.tar.gz"],
    "worker": [],
}


def copied(name: str, target: Path) -> Path:
    """A playbook in a folder of its own, as somebody who starts from it would have it."""
    return Path(shutil.copytree(PLAYBOOKS / name, target))


def test_none_is_forgotten() -> None:
    """Every playbook is tested here, and named in the list of them."""
    assert {path.parent.name for path in PLAYBOOKS.glob("*/plan.yaml")} == set(BUILT)
    listed = (PLAYBOOKS / "README.md").read_text()
    assert all(f"({name}/plan.yaml)" in listed for name in BUILT)


@pytest.mark.parametrize("name", BUILT)
def test_valid(name: str, tmp_path: Path) -> None:
    """It loads, once what a build makes is there."""
    folder = copied(name, tmp_path / name)
    for built in BUILT[name]:
        (folder / built).parent.mkdir(parents=True, exist_ok=True)
        (folder / built).touch()
    plan = load(folder / "plan.yaml", environ={"PWD": str(folder)})
    assert plan.name == ("shop" if name == "demo" else name)


def test_worker_runs_here() -> None:
    """Start, a release that does its jobs wrong, and the old one back: with its own commands."""
    with somebody() as user:
        folder = copied("worker", user.home / "worker")
        root = user.home / "srv"
        give(user.home)

        def deploy(version: str) -> tuple[int, str]:
            process = user.start(
                "deployguard",
                "apply",
                str(folder / "plan.yaml"),
                "--release",
                version,
                "--var",
                f"root={root}",
            )
            text, _ = process.communicate(timeout=120)
            return process.returncode, text

        ctl = [str(root / "worker" / "current" / "bin" / "ctl")]
        try:
            assert deploy("v1")[0] == 0
            code = folder / "app" / "worker.py"
            code.write_text(code.read_text().replace("upper", "lower"))
            status, text = deploy("v2")
            assert status == 3, text
            assert "no answer from the worker within 2 s" in text
            assert subprocess.run([*ctl, "status"], check=False).returncode == 0
            assert (root / "worker" / "current").readlink() == Path("releases/v1")
        finally:
            subprocess.run([*ctl, "stop"], check=True, timeout=30)


def give(folder: Path) -> None:
    """Everything in ``folder`` to whom the folder belongs."""
    owner = folder.stat()
    for path in folder.rglob("*"):
        shutil.chown(path, owner.st_uid, owner.st_gid)


@pytest.fixture
def clean(fleet: Fleet) -> Iterator[Fleet]:
    """The hosts, empty again afterwards."""
    yield fleet
    for host in fleet.hosts:
        host.reset()


# --- static ------------------------------------------------------------------------------------


def build_site(folder: Path, version: str, says: str = "") -> None:
    """One release of the site."""
    tree = folder.parent / f"site-{version}"
    tree.mkdir()
    (tree / "index.html").write_text(f"<p>site {says or version}</p>\n")
    (tree / f"only-{version}.html").write_text("a page\n")
    pack(tree, folder / "dist" / f"site-{version}.tar.gz")


def workers(host: Host) -> str:
    """Which nginx runs: its main process, which a reload keeps and a restart does not."""
    return host.run(["systemctl", "show", "-P", "MainPID", "nginx"]).stdout.decode().strip()


def page(host: Host, path: str = "/") -> str:
    """What the site answers."""
    url = f"http://{host.address}{path}"
    request = urllib.request.Request(url, headers={"Host": "www.example.com"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())


def test_static_site_behind_nginx(clean: Fleet, tmp_path: Path) -> None:
    """Reloaded, and never stopped; a bad page and a bad configuration both come back."""
    folder = copied("static", tmp_path / "static")
    site = Published(clean, folder, ["www1.example.com"])
    host = clean.hosts[0]
    (folder / "dist").mkdir()
    for version, says in (("v1", ""), ("v2", ""), ("v3", "of somebody else"), ("v4", "")):
        build_site(folder, version, says)
    host.run(["systemctl", "start", "nginx"])
    first = workers(host)

    def deploy(version: str) -> tuple[int, str]:
        done = site.run("deployguard", "apply", "plan.yaml", "--release", version)
        return done.returncode, done.stdout

    for version in ("v1", "v2"):
        code, said = deploy(version)
        assert code == 0, said
        assert page(host) == f"<p>site {version}</p>\n"
    before = {place: host.tree(place) for place in ("/srv/site", "/etc/nginx")}

    code, said = deploy("v3")
    assert code == 3, said
    assert "site v3" in said
    (folder / "files" / "site.conf").write_text("server { listen 80; rooot /srv/site; }\n")
    code, said = deploy("v4")
    assert code == 3, said
    assert 'unknown directive "rooot"' in said

    for place, tree in before.items():
        found = host.tree(place)
        # What stood in a folder for a moment has moved its time.
        changed = {path for path in tree | found if tree.get(path) != found.get(path)}
        assert changed <= {b".", b"releases", b"conf.d", b"current"}
    assert page(host) == "<p>site v2</p>\n" and page(host, "/only-v2.html") == "a page\n"
    assert os.readlink(host.path("/srv/site/current")) == "releases/v2"
    assert workers(host) == first


# --- wiki ---------------------------------------------------------------------------------------

KEPT = {
    "/srv/wiki/.env": "TOKEN=only-here\n",
    "/srv/wiki/pages/home.md": "# Home\n",
    "/srv/wiki/wiki.sqlite3": "rows\n",
    "/srv/wiki/public/uploads/a.png": "a picture\n",
}


def test_wiki_keeps_what_is_the_hosts(clean: Fleet, tmp_path: Path) -> None:
    """A tree that grew by hand is taken over, deployed to and restored; no kept file is lost."""
    folder = copied("wiki", tmp_path / "wiki")
    wiki = Published(clean, folder, ["wiki1.example.com"])
    host = clean.hosts[0]
    (folder / "dist").mkdir()
    for version, fault in (("v1", "none"), ("v2", "none"), ("v3", "unhealthy")):
        build = small_release(tmp_path / version, version, fault=fault)
        pack(build, folder / "dist" / f"wiki-{version}.tar.gz")
    for path, text in {**KEPT, "/srv/wiki/db/connection.py": "production only\n"}.items():
        host.write(path, text)
    before = host.tree("/srv/wiki")

    refused = wiki.run("deployguard", "apply", "plan.yaml", "--release", "v1")
    assert refused.returncode == 5, refused.stdout
    assert "db/connection.py" in refused.stdout and ".env" not in refused.stdout
    assert host.tree("/srv/wiki") == before

    saved = wiki.run("deployguard", "apply", "plan.yaml", "--release", "v1", "--drift", "save")
    assert saved.returncode == 0, saved.stdout
    assert served(host, 8080)["version"] == "v1"
    good = wiki.run("deployguard", "apply", "plan.yaml")
    assert good.returncode == 0, good.stdout
    assert served(host, 8080)["version"] == "v2"

    written_while_on_trial(wiki, host)
    assert served(host, 8080)["version"] == "v2"
    assert host.read("/srv/wiki/pages/meanwhile.md") == b"written while v3 was on trial\n"
    assert {path: host.read(path).decode() for path in KEPT} == KEPT


def written_while_on_trial(wiki: Published, host: Host) -> None:
    """Deploy v3, which fails, and write a page while it is live."""
    process = subprocess.Popen(
        ["deployguard", "apply", "plan.yaml", "--release", "v3"],
        cwd=wiki.folder,
        env=wiki.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "check started" in line:
            assert host.read("/srv/wiki/VERSION") == b"v3\n"
            host.write("/srv/wiki/pages/meanwhile.md", "written while v3 was on trial\n")
    assert process.wait(timeout=60) == 3, "".join(seen)


# --- notes --------------------------------------------------------------------------------------


def test_notes_is_pulled_no_more(clean: Fleet, tmp_path: Path) -> None:
    """A clone of a user is taken over, goes to the next tag, and back with its repository."""
    folder = copied("notes", tmp_path / "notes")
    notes = Published(clean, folder, ["notes1.example.com"])
    host = clean.hosts[0]
    repository = tmp_path / "repository"
    commits: dict[str, str] = {}
    git = ["git", "-C", str(repository), "-c", "user.name=dev", "-c", "user.email=dev@example.com"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
    for version, fault in (("v1", "none"), ("v2", "none"), ("v3", "unhealthy")):
        build = small_release(tmp_path / version, version, fault=fault)
        shutil.copytree(build, repository, dirs_exist_ok=True)
        for words in (["add", "-A"], ["commit", "-q", "-m", version], ["tag", version]):
            subprocess.run([*git, *words], check=True)
        commits[version] = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    publish(repository, host)

    clone = ["git", "clone", "-q", "--branch", "v1", "https://git.example.com/notes.git"]
    host.run(["install", "-d", "-o", "deploy", "-g", "deploy", "/srv/notes"])
    host.run(["sudo", "-u", "deploy", *clone, "/srv/notes"])
    host.run(["sudo", "-u", "deploy", "git", "-C", "/srv/notes", "checkout", "-q", "-B", "main"])
    host.write("/srv/notes/.env", "TOKEN=only-here\n")
    host.write("/srv/notes/VERSION", "v1, mended at night\n")
    before = host.tree("/srv/notes")
    refused = notes.run("deployguard", "apply", "plan.yaml")
    assert refused.returncode == 5, refused.stdout
    assert "changed by hand: VERSION (" in refused.stdout
    assert host.tree("/srv/notes") == before
    host.write("/srv/notes/VERSION", "v1\n")

    good = notes.run("deployguard", "apply", "plan.yaml")
    assert good.returncode == 0, good.stdout
    assert served(host, 8080)["version"] == "v2"
    assert host.read("/srv/notes/.git/HEAD") == b"ref: refs/heads/main\n"
    assert host.read("/srv/notes/.git/refs/heads/main").decode().strip() == commits["v2"]
    assert host.read("/srv/notes/.env") == b"TOKEN=only-here\n"
    before = host.tree("/srv/notes")
    failed = notes.run("deployguard", "apply", "plan.yaml", "--release", "v3")
    assert failed.returncode == 3, failed.stdout
    after = host.tree("/srv/notes")
    new = {path: entry for path, entry in after.items() if before.get(path) != entry}
    tags = b".git/refs/tags/deployguard"
    assert {path for path, entry in new.items() if entry.kind != "directory"} == {
        path for path in new if path.startswith(tags + b"/")
    }
    assert len([path for path in new if path.startswith(tags + b"/")]) == 1
    assert served(host, 8080)["version"] == "v2"


def publish(repository: Path, host: Host) -> None:
    """The repository at the address of the plan, as any file server has it, with a certificate."""
    bare = host.path("/srv/www/notes.git")
    subprocess.run(["git", "clone", "-q", "--bare", str(repository), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", "/srv/www.key", "-out", "/srv/www.crt"]
    name = ["-subj", "/CN=git.example.com", "-addext", "subjectAltName=DNS:git.example.com"]
    host.run(["openssl", "req", "-x509", "-days", "2", *key, *name])
    host.run(["cp", "/srv/www.crt", "/usr/local/share/ca-certificates/git.crt"])
    host.run(["update-ca-certificates"])
    with host.path("/etc/hosts").open("a") as hosts:
        hosts.write("127.0.0.1 git.example.com\n")
    host.write("/srv/www.py", FILES)
    host.run(["systemd-run", "--quiet", "--unit=www", "python3", "/srv/www.py"])


FILES = """\
import functools, http.server, ssl
files = functools.partial(http.server.SimpleHTTPRequestHandler, directory="/srv/www")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 443), files)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/www.crt", "/srv/www.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""

# --- shop ---------------------------------------------------------------------------------------

WEB = [f"web{number}.example.com" for number in range(1, 5)]

BACKEND = """\
#!/usr/bin/python3
import http.server, json, os, pathlib, socket
broken = pathlib.Path("BROKEN_ON").exists() and (
    pathlib.Path("BROKEN_ON").read_text().strip() == socket.gethostname())
class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = "no stock table" if broken else "healthy"
        body = json.dumps({"status": status, "version": os.environ["RELEASE"]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Shop).serve_forever()
"""

FRONTEND_UNIT = """\
[Service]
WorkingDirectory=/srv/frontend
ExecStart=/usr/bin/python3 -m http.server 8080
"""


def logs(name: str) -> str:
    """A program that writes down how it was called."""
    return f'#!/bin/sh\necho "{name} $*" >>/var/log/shop-calls\n'


def build_shop(folder: Path, version: str, broken_on: str) -> None:
    """The artifacts of one version, as a build job would leave them in ``dist``."""
    backend = folder.parent / f"backend-{version}"
    frontend = folder / "dist" / "frontend"
    shutil.rmtree(frontend, ignore_errors=True)
    for directory in (backend / "bin", frontend / "bin"):
        directory.mkdir(parents=True)
    (backend / "bin" / "backend").write_text(BACKEND)
    (backend / "manage.py").write_text(logs("manage.py"))
    (backend / "BROKEN_ON").write_text(broken_on)
    (frontend / "index.html").write_text(f"<title>Shop</title>{version}")
    (frontend / "bin" / "warm").write_text(logs("warm"))
    for program in (backend / "bin" / "backend", backend / "manage.py", frontend / "bin" / "warm"):
        program.chmod(0o755)
    pack(backend, folder / "dist" / f"backend-{version}.tar.gz")


def prepare(fleet: Fleet, shop: Published) -> None:
    """What the shop's plan takes for granted on its hosts."""
    jobs = shop.hosts["jobs1.example.com"]
    jobs.write("/etc/ssh/sshd_config.d/jobs.conf", "Port 22\nPort 2222\n")
    jobs.run(["systemctl", "restart", "ssh"])
    known = jobs.known_hosts.read_text().splitlines()
    key = next(line.split(maxsplit=1)[1] for line in known if line.startswith(f"{jobs.name},"))
    (shop.home / ".ssh" / "jobs").write_text(f"[{jobs.address}]:2222 {key}\n")
    config = shop.home / ".ssh" / "config"
    host, _, rest = config.read_text().rpartition("  UserKnownHostsFile ")
    config.write_text(f"{host}  UserKnownHostsFile ~/.ssh/jobs\n")
    assert rest.strip() == str(jobs.known_hosts)
    for each in shop.hosts.values():
        each.write("/usr/local/bin/lb", logs("lb"), mode=0o755)
        with each.path("/etc/hosts").open("a") as hosts:
            hosts.write(f"{fleet.controller} db.example.com\n")
        each.run(["mkdir", "-p", "/srv/backend/shared/uploads", "/etc/shop"])
    for name in WEB:
        shop.hosts[name].write("/etc/systemd/system/frontend.service", FRONTEND_UNIT)
        shop.hosts[name].run(["systemctl", "daemon-reload"])


@pytest.fixture
def database(clean: Fleet) -> Iterator[None]:
    """Something that answers at port 5432 of the controller."""
    with socket.create_server((clean.controller, 5432)) as server:

        def answer() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        yield
        server.shutdown(socket.SHUT_RDWR)


def standing(host: Host) -> dict[bytes, object]:
    """All there is below /srv; a time of the directories that hold the trees says nothing."""
    found: dict[bytes, object] = dict(host.tree("/srv"))
    for name in (b".", b"backend", b"backend/releases", b"backend/current"):
        found.pop(name)
    assert os.readlink(host.path("/srv/backend/current")) == "releases/v1.2.3"
    return found


@pytest.mark.usefixtures("database")
def test_shop_on_five_hosts(clean: Fleet, tmp_path: Path) -> None:
    """Two components in batches; the last batch fails, and everything of all five is back."""
    folder = copied("shop", tmp_path / "shop")
    shop = Published(clean, folder, [*WEB, "jobs1.example.com"])
    prepare(clean, shop)
    build_shop(folder, "v1.2.3", broken_on="")
    first = shop.run("deployguard", "apply", "plan.yaml", "--release", "v1.2.3")
    assert first.returncode == 0, first.stdout
    everything = list(shop.hosts.values())
    trees = [standing(host) for host in everything]
    build_shop(folder, "v1.2.4", broken_on="web4")
    failed = shop.run("deployguard", "apply", "plan.yaml")
    assert failed.returncode == 3, failed.stdout
    assert "no stock table" in failed.stdout
    assert [standing(host) for host in everything] == trees
    for host in everything:
        assert served(host, 3000) == {"status": "healthy", "version": "v1.2.3"}
        assert host.read("/etc/shop/backend.env") == b"PORT=3000\nRELEASE=v1.2.3\n"
    calls = shop.hosts[WEB[0]].read("/var/log/shop-calls").decode().splitlines()
    assert calls == [
        "manage.py migrate",
        "warm ",
        "lb refresh",
        "manage.py migrate",
        "warm ",
        "manage.py migrate shop 0041",
        "lb refresh",
    ]
