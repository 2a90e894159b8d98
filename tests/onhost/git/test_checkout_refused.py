"""What a checkout is not deployed over, or not from: named, with the mend, and nothing touched."""

from __future__ import annotations

import http.server
import os
import stat
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from deployguard.onhost.git import command as onhost_git
from deployguard.onhost.places import NotManageable
from tests.onhost.bench import MEMORY
from tests.onhost.git.test_checkout import NEWER, live
from tests.onhost.gitbench import BRANCH, GitBench, GitDeploy, git


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


def refused(deploy: GitDeploy) -> str:
    """What the host says to a deploy that it does not take; nothing of it stays."""
    before = deploy.bench.world()
    with pytest.raises(NotManageable) as caught:
        deploy.to("stage")
    deploy.participant.abort()
    deploy.close()
    assert deploy.bench.world() == before
    assert deploy.bench.locks() == []
    return "%s (%s)" % (caught.value, caught.value.hint)


def looked(deploy: GitDeploy) -> Dict[str, Any]:
    """What a look finds; the live checkout is not touched by it, its index included."""
    bench = deploy.bench
    before = bench.world()
    found = deploy.to("look").component
    deploy.participant.abort()
    deploy.close()
    assert bench.world() == before
    return found


# --- what people have done ----------------------------------------------------------------------


def test_what_was_changed_by_hand_is_named(tmp_path: Path) -> None:
    """Changed, staged, removed, hidden from git status; not what the revision has as well."""
    bench = live(tmp_path)
    path = Path(bench.path)
    assert looked(bench.deploy("v2"))["drift"] == {"changed": [], "added": [], "removed": []}
    (path / "same.txt").write_text("by hand")
    (path / "lib/gone").unlink()
    (path / ".gitignore").write_text("staged")
    git(bench.path, "add", ".gitignore")
    (path / ".gitignore").write_text(NEWER[".gitignore"])
    git(bench.path, "update-index", "--assume-unchanged", "VERSION")
    (path / "VERSION").write_text("hidden")
    (path / "lib/a").write_text(NEWER["lib/a"])  # fixed in a hurry, and committed since
    found = looked(bench.deploy("v2"))
    assert found["drift"]["changed"] == ["VERSION", "lib/gone", "same.txt"]


def test_what_is_in_no_commit_is_named(tmp_path: Path) -> None:
    """Untracked or ignored by git, unless the plan keeps or ignores it; folders in a word."""
    bench = live(tmp_path, keep=["uploads", "var/cache"], ignore=["*.log"])
    for name in ("notes", "web.log", "uploads/a", "var/cache/x", "lib/b", "lib/new"):
        os.makedirs(os.path.dirname(os.path.join(bench.path, name)), exist_ok=True)
        Path(bench.path, name).write_text(name if name != "lib/new" else NEWER["lib/new"])
    for number in range(3):
        os.makedirs("%s/node_modules/m%d" % (bench.path, number))
        Path(bench.path, "node_modules/m%d/index.js" % number).touch()
    found = looked(bench.deploy("v2"))
    assert found["git"]["extra"] == ["lib/b", "node_modules/ (3 files)", "notes"]
    assert len(found["drift"]["added"]) == 5
    assert [path for path, _ in found["removed"]] == ["lib/gone"]


@pytest.mark.parametrize("source", [{}, {"from": "bundle"}], ids=["remote", "bundle"])
def test_commits_that_are_nowhere_else_are_named(tmp_path: Path, source: Dict[str, Any]) -> None:
    """Committed on the host and not pushed; what was pushed, or deployed by us, is elsewhere."""
    bench = live(tmp_path, source=source)
    Path(bench.path, "lib/a").write_text("fixed at night")
    git(bench.path, "commit", "-q", "-a", "-m", "a fix, 3 a.m.")
    short = git(bench.path, "rev-parse", "--short", "HEAD")
    found = looked(bench.deploy("v2"))
    assert found["git"]["local_commits"] == [short + " a fix, 3 a.m."]
    git(bench.path, "push", "-q", "origin", "HEAD:refs/heads/hotfix")
    if source:
        bench.source["known"] = [git(bench.path, "rev-parse", "HEAD")]
        git(bench.path, "update-ref", "-d", "refs/remotes/origin/hotfix")
    assert looked(bench.deploy("v2"))["git"]["local_commits"] == []


def test_going_back_to_an_older_tag_loses_nothing(tmp_path: Path) -> None:
    """What the last deploy brought is no commit of the host's own."""
    bench = live(tmp_path, source={"from": "bundle"})
    git(bench.path, "remote", "remove", "origin")
    bench.release("v2").close()
    found = looked(bench.deploy("v1"))
    assert found["git"]["local_commits"] == [] and found["git"]["rewritten"] == ""


def test_save_keeps_all_of_it(tmp_path: Path) -> None:
    """Files in a bundle, and index, changes and commits as a stash under a tag of its own."""
    bench = live(tmp_path)
    Path(bench.path, "lib/a").write_text("committed at night")
    git(bench.path, "commit", "-q", "-a", "-m", "a fix")
    commit = git(bench.path, "rev-parse", "HEAD")
    Path(bench.path, "same.txt").write_text("staged")
    git(bench.path, "add", "same.txt")
    Path(bench.path, "same.txt").write_text("and changed again")
    Path(bench.path, "notes").write_text("in no commit")
    before, said = bench.world(), bench.says()
    deploy = bench.deploy("v2").to("look")
    answer = deploy.participant.stage({"components": ["app"], "save": True})
    assert before.items() <= bench.world().items() and bench.says() == said
    bundle = answer["saved"]["app"]
    listed = subprocess.run(["tar", "tzf", bundle], check=True, capture_output=True).stdout
    assert listed.decode().split() == ["notes", "same.txt"]
    deploy._done = 3
    deploy.to("commit").close()
    saved = "deployguard/saved/" + deploy.identifier
    assert bench.git("status", "--porcelain") == ""
    assert bench.git("rev-parse", saved + "^1") == commit
    assert bench.git("show", saved + "^2:same.txt") == "staged"
    git(bench.path, "checkout", "-q", commit)
    git(bench.path, "stash", "apply", "--index", saved)
    assert git(bench.path, "status", "--porcelain") == "MM same.txt"


def test_conflicts_cannot_be_saved(tmp_path: Path) -> None:
    """A stash that did not fit: git makes no stash of that, and nobody guesses what was meant."""
    bench = live(tmp_path)
    Path(bench.path, "lib/a").write_text("fixed at night")
    git(bench.path, "commit", "-q", "-a", "-m", "a fix")
    popped = subprocess.run(["git", "-C", bench.path, "stash", "pop"], check=False)
    assert popped.returncode == 1
    assert looked(bench.deploy("v2"))["drift"]["changed"] == ["lib/a"]
    deploy = bench.deploy("v2").to("look")
    words = "has conflicts that nobody has resolved, and git stashes none: lib/a"
    with pytest.raises(NotManageable, match=words):
        deploy.participant.stage({"components": ["app"], "save": True})
    deploy.participant.abort()
    deploy.close()
    assert git(bench.path, "status", "--porcelain") == "UU lib/a"


# --- where it comes from ------------------------------------------------------------------------


@pytest.mark.parametrize("source", [{}, {"from": "bundle"}], ids=["remote", "bundle"])
def test_a_rewritten_branch_is_noticed(tmp_path: Path, source: Dict[str, Any]) -> None:
    """What is live is no longer in the branch: force-pushed, or never there."""
    bench = live(tmp_path, source=source)
    assert looked(bench.deploy(BRANCH))["git"]["rewritten"] == ""
    git(bench.upstream, "commit", "-q", "--amend", "-m", "v2, again")
    assert looked(bench.deploy(BRANCH))["git"]["rewritten"] == ""  # v1 is still in it
    bench.release("v2").close()
    head = bench.git("rev-parse", "HEAD")[:12]
    words = "main does not contain %s, which is live: it was rewritten, or never had it" % head
    assert looked(bench.deploy(BRANCH))["git"]["rewritten"] == words


def test_a_moved_tag_is_noticed(tmp_path: Path) -> None:
    """A version that means something else than it did."""
    bench = live(tmp_path)
    bench.release("v2").close()
    was = bench.git("rev-parse", "v2")
    git(bench.upstream, "tag", "-f", "v2", "v1")
    words = looked(bench.deploy("v2"))["git"]["rewritten"]
    assert words == "the tag v2 was moved: it is %s on the host, and %s now" % (
        was[:12],
        git(bench.upstream, "rev-parse", "v1")[:12],
    )


def test_a_revision_that_is_not_there(tmp_path: Path) -> None:
    """One clear sentence, with what was probably meant."""
    bench = live(tmp_path)
    git(bench.upstream, "branch", "v3.0")
    git(bench.upstream, "tag", "v3.0", "v1")
    for name, words in (
        ("v22", "origin has no branch or tag v22 (did you mean v2?)"),
        ("release", "origin has no branch or tag release (push it there first)"),
        ("origin/main", "has no branch or tag origin/main (write main, as it is called there)"),
        ("HEAD", "no branch or tag HEAD (name a branch or a tag: HEAD is another one in"),
        ("abc1234", "no branch or tag abc1234 (a commit is named by its whole hash: git rev-parse"),
        ("f" * 40, "origin has no commit ffff"),
        ("v3.0", "v3.0 is a branch and a tag at origin (write refs/heads/v3.0 or "),
    ):
        deploy = GitDeploy(bench, name, bench.upstream, {})
        assert words in refused(deploy)


def test_a_remote_that_does_not_answer(tmp_path: Path) -> None:
    """Gone, another one than the plan says, or unknown."""
    bench = live(tmp_path)
    os.rename(bench.upstream, bench.upstream + ".gone")
    deploy = GitDeploy(bench, "v2", "", {})
    assert "v2 cannot be fetched from origin: " in refused(deploy)
    os.rename(bench.upstream + ".gone", bench.upstream)
    bench.source["url"] = "https://git.example.com/shop"
    assert "origin of %s is file://" % bench.path in refused(bench.deploy("v2"))
    bench.source.update(remote="fork", url=None)
    assert "has no remote fork" in refused(bench.deploy("v2"))


class _Closed(http.server.BaseHTTPRequestHandler):
    """A server that gives nothing away without a password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_remote_that_asks_for_a_password(tmp_path: Path) -> None:
    """Nobody waits for one; who has to get a key, or a credential helper, is said."""
    bench = live(tmp_path)
    git(bench.path, "config", "core.askPass", "false")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = "http://127.0.0.1:%d/shop.git" % server.server_port
        git(bench.path, "remote", "set-url", "origin", url)
        bench.source["url"] = url
        said = refused(bench.deploy("v2"))
        server.shutdown()
    assert "v2 cannot be fetched from origin: git ls-remote: could not read Username for" in said
    assert "it asks for a password, and nobody is there to type one: let" in said


@pytest.mark.parametrize(
    ("said", "words", "mend"),
    [
        ("git@h: Permission denied (publickey).", "git@h: Permission denied (publickey).", "a key"),
        ("Host key verification failed.", "Host key verification failed.", "known_hosts"),
        ("ssh: Could not resolve hostname h: unknown", "Could not resolve hostname", "keys"),
    ],
)
def test_what_ssh_says(tmp_path: Path, said: str, words: str, mend: str) -> None:
    """The line of ssh, which has the cause, and not that of git, which has none."""
    bench = live(tmp_path)
    ssh = Path(bench.root, "ssh")
    ssh.write_text("#!/bin/sh\necho '%s' >&2\nexit 255\n" % said)
    ssh.chmod(0o755)
    git(bench.path, "config", "core.sshCommand", str(ssh))
    git(bench.path, "remote", "set-url", "origin", "ssh://git@h/shop")
    bench.source["url"] = None
    found = refused(bench.deploy("v2"))
    assert "v2 cannot be fetched from origin: git ls-remote: " in found
    assert words in found and mend in found and "Could not read from" not in found


def test_a_bundle_that_does_not_begin_where_the_host_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs a commit that the host has not, or no more: named, and nothing of it stays."""
    bench = live(tmp_path, source={"from": "bundle"})
    missing = bench.commit("v2.1")
    deploy = bench.deploy("v3")
    bundle = deploy.bundle
    monkeypatch.setattr(deploy, "bundle", lambda tip, haves: bundle(tip, [missing]))
    said = refused(deploy)
    assert "the bundle does not fit what is in %s: git fetch: " % bench.path in said
    assert "lacks these prerequisite commits: " + missing in said
    bench.release("v3").close()


def test_a_commit_by_its_hash(tmp_path: Path) -> None:
    """From a server that gives any commit away, and from one that gives only names."""
    for allowed in ("true", "false"):
        root = tmp_path / allowed
        root.mkdir()
        bench = live(root)
        git(bench.upstream, "config", "uploadpack.allowAnySHA1InWant", allowed)
        commit = git(bench.upstream, "rev-parse", "v2")
        bench.commit("v3")
        deploy = bench.deploy(commit).to("commit")
        deploy.close()
        assert bench.git("rev-parse", "HEAD") == commit


def test_a_shallow_clone(tmp_path: Path) -> None:
    """It knows as far back as it does, and is deployed to all the same."""
    for source in ({}, {"from": "bundle"}):
        root = tmp_path / str(len(source))
        root.mkdir()
        bench = GitBench(str(root), source=source)
        for version in ("v1", "v2", "v3"):
            bench.commit(version, {"lib/a": version})
        git(bench.root, "clone", "-q", "--depth=1", "file://" + bench.upstream, bench.path)
        bench.served = "v3"
        bench.commit("v4", {"lib/a": "v4"})
        before, said = bench.world(), bench.says()
        deploy = bench.deploy("v4").to("switch")
        assert bench.git("rev-list", "--count", "HEAD") == "2"
        assert bench.git("fsck") == ""
        assert deploy.restore()["verified"]
        deploy.close()
        assert bench.world() == before and bench.says() == said
        bench.release("v4").close()
        bench.release("v5").close()
        assert bench.git("status", "--porcelain") == ""


def _submodule(bench: GitBench) -> None:
    git(bench.upstream, "submodule", "--quiet", "add", "file://" + bench.upstream, "vendor/lib")
    git(bench.upstream, "commit", "-q", "-m", "with a submodule")


def _filter(name: str) -> Callable[[GitBench], None]:
    def commit(bench: GitBench) -> None:
        Path(bench.upstream, "big.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
        Path(bench.upstream, ".gitattributes").write_text("*.bin filter=%s -text\n" % name)
        git(bench.upstream, "add", "-A")
        git(bench.upstream, "commit", "-q", "-m", "with a filter")

    return commit


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_submodule, "has submodules, whose files are not in it: vendor/lib"),
        (_filter("lfs"), "keeps big.bin in Git LFS"),
        (_filter("crypt"), "keeps big.bin behind the filter crypt"),
    ],
)
def test_commits_without_all_of_their_files(
    tmp_path: Path, change: Callable[[GitBench], None], words: str
) -> None:
    """Submodules, LFS and filters: refused rather than deployed in part."""
    bench = live(tmp_path)
    change(bench)
    assert words in refused(bench.deploy(BRANCH))


# --- what is there ------------------------------------------------------------------------------


def _make(*parts: str) -> Callable[[GitBench], None]:
    def create(bench: GitBench) -> None:
        path = Path(bench.path, *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("something\n")

    return create


def _run(*arguments: str) -> Callable[[GitBench], object]:
    return lambda bench: git(bench.path, *arguments)


def _move_git(bench: GitBench) -> None:
    git(bench.path, "init", "-q", "--separate-git-dir", bench.root + "/elsewhere")


def _no_git(bench: GitBench) -> None:
    os.rename(bench.path + "/.git", bench.root + "/elsewhere")


def _bare(bench: GitBench) -> None:
    os.rename(bench.path, bench.root + "/elsewhere")
    git(bench.root, "clone", "-q", "--bare", "file://" + bench.upstream, bench.path)


UNUSUAL: List[Any] = [
    (_no_git, "is not a git checkout: there is no .git in it (move it away for a first deploy"),
    (_move_git, "leads to a repository elsewhere"),
    (_bare, "is a bare repository (name the path of a checkout)"),
    (_make(".git", "MERGE_HEAD"), "is in the middle of a merge (finish it there, or abort it)"),
    (_make(".git", "rebase-merge", "onto"), "is in the middle of a rebase"),
    (_make(".git", "index.lock"), "index.lock is there: a git is at work in it, or one has died"),
    (_run("worktree", "add", "-q", "../other"), "has linked work trees"),
    (_run("config", "core.worktree", "/srv"), "has its work tree elsewhere: core.worktree is /srv"),
    (_run("config", "core.sparseCheckout", "true"), "is a sparse checkout"),
    (_run("sparse-checkout", "set", "lib"), "is a sparse checkout"),
    (_run("config", "remote.origin.promisor", "true"), "is a partial clone"),
    (_make(".git", "objects", "info", "alternates"), "borrows objects by a relative path"),
    (lambda bench: os.chmod(bench.path + "/.git/config", 0o666), "can be written by others"),
]


@pytest.mark.parametrize(("change", "words"), UNUSUAL)
def test_unusual_checkouts(
    tmp_path: Path, change: Callable[[GitBench], object], words: str
) -> None:
    """Each is refused with what it is, and what to do about it."""
    bench = live(tmp_path)
    change(bench)
    # Not with GitBench.world's helpers: some of these no longer answer to git.
    assert words in refused(bench.deploy("v2"))


@pytest.mark.parametrize("source", [{}, {"from": "bundle"}], ids=["remote", "bundle"])
@pytest.mark.parametrize("part", ["HEAD", "index", "refs/heads/main", "packed-refs"])
def test_a_damaged_repository(tmp_path: Path, source: Dict[str, Any], part: str) -> None:
    """Git's own word for it, where it is, and where to look; not an error of ours."""
    bench = live(tmp_path, source=source)
    Path(bench.path, ".git", part).write_bytes(b"DIRC, and then nothing")
    said = refused(bench.deploy("v2"))
    assert bench.path in said and "fsck" in said


def test_no_git_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, and what to install."""
    bench = live(tmp_path)
    deploy = bench.deploy("v2")
    monkeypatch.setenv("PATH", str(tmp_path / "build"))
    with pytest.raises(NotManageable, match="git is not installed on the host"):
        deploy.to("look")
    deploy.participant.abort()
    deploy.close()


def test_an_old_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would not understand is not tried."""
    bench = live(tmp_path)
    monkeypatch.setattr(onhost_git, "NEEDED", (99, 1))
    assert "(layout: git needs git 99.1 or later there)" in refused(bench.deploy("v2"))


def test_no_room_for_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known before a byte of them is written."""
    from deployguard.onhost.trees import space

    bench = live(tmp_path)
    monkeypatch.setattr(space, "free", lambda path: space.Space(1000, 1000))
    assert "the files of v2 need 12288 bytes in " in refused(bench.deploy("v2"))


# --- whose programs run -------------------------------------------------------------------------

#: Every setting, hook and file by which a repository makes git run something.
TRAP = """\
#!/bin/sh
id -u >> {root}/build/ran
"""


def _trapped(bench: GitBench) -> str:
    """The live checkout, in which everything that can be named is a program that leaves a trace."""
    trap = bench.root + "/trap"
    Path(trap).write_text(TRAP.format(root=bench.root))
    os.chmod(trap, 0o755)
    git(bench.path, "status")
    for key in (
        "core.fsmonitor",
        "core.alternateRefsCommand",
        "core.pager",
        "core.editor",
        "core.askPass",
        "core.gitProxy",
        "diff.external",
        "gpg.program",
        "filter.x.smudge",
        "filter.x.clean",
        "pager.log",
        "sequence.editor",
        "uploadpack.packObjectsHook",
    ):
        git(bench.path, "config", key, trap)
    git(bench.path, "config", "core.hooksPath", bench.root + "/hooks")
    for folder in (bench.root + "/hooks", bench.path + "/.git/hooks"):
        os.makedirs(folder, exist_ok=True)
        for hook in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
            os.symlink(trap, os.path.join(folder, hook))
    git(bench.path, "config", "log.showSignature", "true")
    return bench.root + "/build/ran"


@pytest.mark.parametrize("source", [{}, {"from": "bundle"}], ids=["remote", "bundle"])
def test_nothing_that_the_repository_names_runs(tmp_path: Path, source: Dict[str, Any]) -> None:
    """Hooks, monitors, pagers, filters: a deploy, a restore and a commit run none of them."""
    bench = live(tmp_path, source=dict(source, branch=BRANCH))
    ran = _trapped(bench)
    Path(bench.path, "lib/a").write_text("changed")
    git(bench.path, "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "stash")
    if os.path.exists(ran):
        os.unlink(ran)
    failed = bench.deploy("v2").to("switch")
    failed.restore()
    failed.close()
    bench.release("v2").close()
    assert not os.path.exists(ran)
    assert os.path.exists(bench.path + "/.git/hooks/post-checkout")  # they are the user's, and stay


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: git runs as somebody else")
def test_git_runs_as_the_owner(tmp_path: Path) -> None:
    """What has to run, such as the way to the remote, runs as the owner of the checkout."""
    os.chmod(str(tmp_path), 0o755)
    bench = live(tmp_path, source={"branch": BRANCH})
    uid = 65534  # nobody
    trap = _trapped(bench)
    git(bench.path, "config", "core.sshCommand", bench.root + "/trap")
    git(bench.path, "remote", "set-url", "origin", "ssh://git@localhost/shop")
    subprocess.run(["chown", "-R", "nobody", bench.path], check=True)
    Path(trap).touch()
    os.chmod(trap, 0o666)
    bench.source["url"] = None
    assert "v2 cannot be fetched from origin" in refused(bench.deploy("v2"))
    assert set(Path(trap).read_text().split()) == {str(uid)}
    bench.source.update(bench.deploy("v2")._local(), **{"from": "bundle"})
    before = bench.world()
    deploy = bench.deploy("v2").to("switch")
    assert {os.lstat(path).st_uid for path in Path(bench.path).rglob("*")} == {uid}
    assert deploy.restore()["verified"]
    deploy.close()
    assert bench.world() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners differ")
@pytest.mark.parametrize("source", [{}, {"from": "bundle"}], ids=["remote", "bundle"])
def test_what_root_has_left_in_it(tmp_path: Path, source: Dict[str, Any]) -> None:
    """Somebody pulled as root once: the new repository is the owner's, the old one as it was."""
    os.chmod(str(tmp_path), 0o755)
    bench = live(tmp_path, source=dict(source, branch=BRANCH))
    subprocess.run(["chown", "-R", "nobody", bench.path], check=True)
    subprocess.run(["chown", "-R", "nobody", bench.upstream], check=True)
    Path(bench.path, ".git/FETCH_HEAD").touch()
    objects = [str(path) for path in Path(bench.path, ".git/objects").glob("??")]
    names = ("index", "logs/HEAD", "refs/heads", "refs/heads/main", "FETCH_HEAD")
    for path in [*objects, *("%s/.git/%s" % (bench.path, name) for name in names)]:
        os.chown(path, 0, 0)
    before, said = bench.world(), bench.says()
    deploy = bench.deploy("v2").to("switch")
    assert {os.lstat(path).st_uid for path in Path(bench.path, ".git").rglob("*")} == {65534}
    assert deploy.restore()["verified"]
    deploy.close()
    assert bench.world() == before and bench.says() == said
    os.chown(bench.path + "/.git/refs/tags", 0, 0)
    words = "refs/tags belongs to the user id 0: somebody has run git there who does not own the"
    said_then = refused(bench.deploy("v2"))
    assert words in said_then and "chown -R nobody: %s/.git" % bench.path in said_then


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners differ")
def test_an_empty_directory_of_somebody(tmp_path: Path) -> None:
    """Made for the owner of the checkout to be: git runs as that user, who gets the files."""
    os.chmod(str(tmp_path), 0o755)
    bench = GitBench(str(tmp_path), source={"branch": BRANCH})
    bench.commit("v1")
    subprocess.run(["chown", "-R", "nobody", bench.upstream], check=True)
    os.makedirs(bench.path)
    os.chown(bench.path, 65534, 65534)
    os.chmod(bench.path, 0o750)
    bench.release("v1").close()
    assert {os.lstat(path).st_uid for path in Path(bench.path).rglob("*")} == {65534}
    top = os.lstat(bench.path)
    assert (top.st_uid, stat.S_IMODE(top.st_mode)) == (65534, 0o750)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners differ")
def test_a_repository_of_another_owner(tmp_path: Path) -> None:
    """Who can write to the .git decides what git runs as the owner of the checkout."""
    bench = live(tmp_path)
    os.chown(bench.path + "/.git/config", 65534, 65534)
    assert "config does not belong to the owner of the checkout" in refused(bench.deploy("v2"))
    os.chown(bench.path + "/.git/config", 0, 65534)
    os.chmod(bench.path + "/.git/config", 0o664)
    assert "config can be written by others than its owner" in refused(bench.deploy("v2"))
    subprocess.run(["chown", "-R", "123456", bench.path], check=True)
    assert "which has no account on the host" in refused(bench.deploy("v2"))


# --- a look -------------------------------------------------------------------------------------


def test_a_preview_leaves_nothing(tmp_path: Path) -> None:
    """The look of `plan` fetches beside the live checkout, and what it fetched goes with it."""
    bench = live(tmp_path)
    before = bench.world()
    preview = bench.deploy("v2")
    preview._done = 1
    preview.to("look")
    assert os.path.isdir(bench.root + "/srv/.app.deployguard")
    preview.close()
    assert bench.world() == before
    killed = bench.deploy("v2")
    killed._done = 1
    killed.to("look")
    for descriptor in killed.participant._trees._preparing._alive:
        os.close(descriptor)
    assert looked_after(bench) == []


def looked_after(bench: GitBench) -> List[str]:
    """What stands beside the checkout after a deploy that went back."""
    deploy = bench.deploy("v2").to("look")
    deploy.participant.abort()
    deploy.close()
    workshop = bench.root + "/srv/.app.deployguard"
    return os.listdir(workshop) if os.path.isdir(workshop) else []


def test_modes_of_what_is_prepared(tmp_path: Path) -> None:
    """Nobody but its owner looks into what was fetched."""
    bench = live(tmp_path)
    deploy = bench.deploy("v2").to("look")
    place = "%s/srv/.app.deployguard/%s.checkout" % (bench.root, deploy.identifier)
    for name in ("git", "work"):
        assert stat.S_IMODE(os.lstat(os.path.join(place, name)).st_mode) == 0o700
    deploy.participant.abort()
    deploy.close()
