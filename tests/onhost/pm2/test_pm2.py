"""PM2 on the host: what it is asked, what is understood of it, and how its processes come back."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

from deployguard.onhost.pm2 import actions as pm2actions
from deployguard.onhost.pm2 import daemon as pm2
from deployguard.onhost.pm2 import evidence as pm2evidence
from deployguard.onhost.pm2 import rpc as pm2rpc
from deployguard.onhost.probes import logs as probe_logs
from deployguard.onhost.probes import pm2 as probe_pm2
from deployguard.onhost.system import System
from tests.onhost.fake_pm2 import Daemon, Pm2System, garbage

system = System()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A PM2_HOME of ours, with a ``pm2`` beside it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pm2").write_text("#!/bin/false\n")
    (tmp_path / "bin" / "pm2").chmod(0o755)
    (tmp_path / ".pm2").mkdir()
    return tmp_path / ".pm2"


@pytest.fixture
def daemon(home: Path) -> Iterator[Daemon]:
    """One that runs."""
    daemon = Daemon(home)
    daemon.start()
    yield daemon
    daemon.stop()


def service(home: Path, *names: str, **more: Any) -> Dict[str, Any]:
    """What the driver says of the service."""
    program = str(home.parent / "bin" / "pm2")
    whose = {"user": None, "home": str(home), "program": program}
    return {"names": list(names) or ["api"], **whose, "known": True, "path": "/srv", **more}


# -- the socket ------------------------------------------------------------------------------------


def test_a_message_there_and_back() -> None:
    """Whatever its arguments are, and as long as it is not whole it is none."""
    data = pm2rpc.encode([b"j:{}", b"s:id", b""])
    assert pm2rpc.decode(bytearray(data)) == [b"j:{}", b"s:id", b""]
    for length in range(len(data)):
        assert pm2rpc.decode(bytearray(data[:length])) is None


def test_no_daemon_is_none_and_starts_none(home: Path) -> None:
    """Neither without a socket, nor with one that a dead daemon left behind."""
    place = pm2.place_of(service(home))
    assert pm2.processes(place, system) is None
    daemon = Daemon(home)
    daemon.start()
    daemon.stop()
    assert (home / "rpc.sock").exists()
    assert pm2.processes(place, system) is None


@pytest.mark.parametrize(
    "says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", garbage(), garbage(2)[:5], b"", b"\x11"]
)
def test_what_is_no_answer_is_unclear(daemon: Daemon, home: Path, says: bytes) -> None:
    """Another protocol, half an answer, none at all: nothing is made up."""
    daemon.says = says
    with pytest.raises(pm2.Unclear, match="does not answer"):
        pm2.processes(pm2.place_of(service(home)), system, timeout=5.0)
    found = probe_pm2.sample(service(home), 5.0, system)
    assert found.state == "unknown"
    refused = pm2.observe(service(home), system)["refused"]
    assert "does not answer" in refused["message"]


# -- what the driver asks --------------------------------------------------------------------------


def test_what_is_observed(daemon: Daemon, home: Path) -> None:
    """By name; no environment is in it, and what changes by itself makes no difference."""
    daemon.add("api", restart_time=3)
    daemon.add("other")
    (home / "dump.pm2").write_text("[]")
    answer = pm2.observe(service(home), system)
    assert answer["running"] and answer["daemon"] and list(answer["apps"]) == ["api"]
    api = answer["apps"]["api"]
    assert (api["processes"], api["stopped"], api["script"]) == (1, 0, "/srv/api/server.js")
    assert "SECRET" not in json.dumps(answer)
    assert answer["saved"][0] is not None and answer["saved"][1] is None
    env = daemon.processes[0]["pm2_env"]
    env.update(restart_time=4, pm_uptime=1, unique_id="x", watch=False)
    assert pm2.observe(service(home), system) == answer
    env["env"]["SECRET"] = "other"
    assert pm2.observe(service(home), system)["apps"] != answer["apps"]


def test_an_unknown_name_is_refused_with_those_that_there_are(daemon: Daemon, home: Path) -> None:
    """Unless a file of the release starts it."""
    daemon.add("web")
    daemon.add("worker")
    refused = pm2.observe(service(home, "web", "apj"), system)["refused"]
    assert "knows no process apj; it has web, worker" in refused["message"]
    assert "ecosystem" in refused["hint"]
    answer = pm2.observe(service(home, "apj", known=False), system)
    assert answer["apps"] == {} and not answer["running"]


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("/srv/api", False),
        ("/srv/api/src", False),  # the process has its folder above it
        ("/srv", False),
        ("/srv/ap", True),
        ("/opt/api", True),
    ],
)
def test_a_process_that_runs_something_else(
    daemon: Daemon, home: Path, path: str, refused: bool
) -> None:
    """It would go on running that, whatever is deployed, and look healthy."""
    daemon.add("api")
    answer = pm2.observe(service(home, path=path), system)
    assert ("refused" in answer) == refused
    if refused:
        said = "api runs /srv/api/server.js in /srv/api, and %s is no part of that" % path
        assert answer["refused"]["message"] == said
    # A file of the release starts it from where it is deployed to.
    assert "refused" not in pm2.observe(service(home, path=path, known=False), system)


def test_no_daemon_knows_no_name(home: Path) -> None:
    """It says so, and does not start one to find out."""
    refused = pm2.observe(service(home), system)["refused"]
    assert "its daemon does not run" in refused["message"]
    assert os.listdir(str(home)) == []


def test_a_missing_pm2_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its path, and where it was looked for."""
    refused = pm2.observe(service(home, program="/no/such/pm2"), system)["refused"]
    assert refused["message"] == "/no/such/pm2 is not there, or no program"
    monkeypatch.setattr(pm2, "_PATHS", ())
    monkeypatch.setenv("PATH", str(home))
    refused = pm2.observe(service(home, program=None), system)["refused"]
    assert refused["message"] == "there is no pm2 in %s" % home
    assert "npm install" in refused["hint"]


def test_nobody_is_refused(home: Path) -> None:
    """A user that the host does not have, a home that is not there."""
    refused = pm2.observe(service(home, user="nobody-of-that-name"), system)["refused"]
    assert "no user nobody-of-that-name" in refused["message"]
    refused = pm2.observe(service(home / "x"), system)["refused"]
    assert "No such file" in refused["message"]


def test_a_saved_file_that_leads_elsewhere_is_refused(daemon: Daemon, home: Path) -> None:
    """What root reads for a user must be the user's own."""
    daemon.add("api")
    (home / "dump.pm2").symlink_to("/etc/shadow")
    refused = pm2.observe(service(home), system)["refused"]
    assert "dump.pm2" in refused["message"]


# -- process checks --------------------------------------------------------------------------------


def sample(daemon: Daemon, **more: Any) -> Any:
    """One look of a process check."""
    return probe_pm2.sample(service(daemon.home, **more), 5.0, system)


def test_online_counts_restarts_and_uptime(daemon: Daemon) -> None:
    """The instance stays the same when PM2 starts it again, and changes when somebody does."""
    entry = daemon.add("api")
    first = sample(daemon)
    assert first.state == "healthy" and first.observed["pm2"] == "online"
    assert first.message.startswith("PM2 says api is online, up ")
    entry["pm2_env"]["restart_time"] += 2
    again = sample(daemon)
    assert again.observed["restarts"] == first.observed["restarts"] + 2
    assert again.observed["instance"] == first.observed["instance"]
    entry["pm2_env"]["created_at"] += 1
    assert sample(daemon).observed["instance"] != first.observed["instance"]


def test_our_own_reload_is_no_restart(daemon: Daemon) -> None:
    """PM2 counts it as one."""
    daemon.add("api", restart_time=1)
    assert sample(daemon, reloaded=True).observed["restarts"] == 0
    assert sample(daemon).observed["restarts"] == 1


@pytest.mark.parametrize(
    ("status", "state", "final"),
    [
        ("online", "healthy", False),
        ("launching", "unhealthy", False),
        ("waiting restart", "unhealthy", False),
        ("stopping", "unhealthy", False),
        ("stopped", "unhealthy", True),
        ("errored", "unhealthy", True),
    ],
)
def test_words_of_pm2(daemon: Daemon, status: str, state: str, final: bool) -> None:
    """What PM2 has given up cannot heal by itself; one bad process of several is enough."""
    daemon.add("api")
    daemon.add("api", status, exit_code=7)
    found = sample(daemon)
    assert (found.state, found.final) == (state, final)
    assert found.observed["pm2"] == status
    if final:
        assert found.message == "PM2 says api is %s, exit code 7" % status
    assert bool(found.observed.get("restart_due")) == (status == "waiting restart")


def test_a_script_that_ran_once_is_well(daemon: Daemon) -> None:
    """It is not to run for ever, and ended well."""
    daemon.add("api", "stopped", autorestart=False, exit_code=0)
    assert sample(daemon).state == "healthy"
    daemon.processes[0]["pm2_env"]["exit_code"] = 1
    assert sample(daemon).state == "unhealthy"


def test_a_name_or_a_daemon_that_is_gone(daemon: Daemon) -> None:
    """Both are findings about the service, and not about us."""
    daemon.add("other")
    found = sample(daemon)
    assert (found.state, found.final) == ("unhealthy", True)
    daemon.stop()
    found = sample(daemon)
    assert found.state == "unhealthy" and "no daemon" in found.message


# -- keeping and bringing back ---------------------------------------------------------------------


class Undo:
    """One deploy's view: keep, then restore."""

    def __init__(self, daemon: Daemon, folder: Path, *names: str) -> None:
        self.daemon = daemon
        self.system = Pm2System(daemon)
        self.folder = folder
        self.folder.mkdir()
        whose = service(daemon.home, *names)
        self.common = {"act": "pm2", "service": whose, "timeout": 5.0}
        observed = pm2.observe(dict(whose, known=False), self.system)
        self.stopped = {name: app["stopped"] for name, app in observed["apps"].items()}
        self.facts: Dict[str, Any] = {}

    def keep(self) -> None:
        """What the host does before the first step."""
        action = {**self.common, "verb": "restore", "component": "a", "stopped": self.stopped}
        self.facts = pm2actions.keep(action, str(self.folder), self.system)

    def do(self, verb: str, **more: Any) -> None:
        """One action of a step."""
        action = {**self.common, "verb": verb, **more}
        pm2actions.perform(action, str(self.folder), None, self.system)

    def restore(self) -> None:
        """The undo."""
        action = {**self.common, "verb": "restore", "component": "a", "stopped": self.stopped}
        pm2actions.perform(action, str(self.folder), self.facts, self.system)


def summaries(daemon: Daemon) -> Dict[str, Any]:
    """What must be the same again."""
    found = pm2.named(daemon.processes, ["api", "worker", "other"])
    return {name: pm2.summary(entries) for name, entries in found.items()}


def test_deleted_processes_are_resurrected(daemon: Daemon, tmp_path: Path) -> None:
    """With the environment they had; another's are not touched, and nothing is left behind."""
    daemon.add("api", env={"SECRET": "s", "NODE_ENV": "production"})
    daemon.add("api", "errored")
    daemon.add("other", "stopped")
    before = summaries(daemon)
    undo = Undo(daemon, tmp_path / "t1")
    undo.keep()
    undo.do("delete")
    assert list(daemon.state()) == ["other"]
    daemon.add("api", env={"SECRET": "new"})
    undo.do("delete")
    undo.restore()
    assert summaries(daemon) == before
    assert sorted(os.listdir(str(daemon.home))) == ["rpc.sock"]
    assert undo.system.environment["PM2_HOME"] == str(daemon.home)


def test_what_is_still_there_is_restarted_as_it_is(daemon: Daemon, tmp_path: Path) -> None:
    """It keeps its number, with which people and logs call it, and its count starts anew."""
    daemon.add("other")
    number = daemon.add("api", restart_time=9)["pm_id"]
    undo = Undo(daemon, tmp_path / "t1")
    undo.keep()
    undo.do("stop")
    undo.restore()
    (api,) = pm2.named(daemon.processes, ["api"])["api"]
    assert api["pm_id"] == number and api["pm2_env"]["restart_time"] == 0
    assert daemon.state() == {"other": "online", "api": "online"}
    assert ["restart", "api"] in undo.system.asked


def test_what_was_stopped_is_stopped_again(daemon: Daemon, tmp_path: Path) -> None:
    """Also where it is still there under its number."""
    daemon.add("api", "stopped")
    undo = Undo(daemon, tmp_path / "t1")
    undo.keep()
    undo.do("run", argv=["restart", "api"])
    undo.restore()
    assert daemon.state() == {"api": "stopped"}


def test_what_stopped_between_the_look_and_the_stop_runs_again(
    daemon: Daemon, tmp_path: Path
) -> None:
    """What was observed is what comes back."""
    entry = daemon.add("api")
    undo = Undo(daemon, tmp_path / "t1")
    entry["pm2_env"]["status"] = "stopped"
    undo.keep()
    undo.do("delete")
    undo.restore()
    assert daemon.state() == {"api": "online"}


def test_nothing_was_there_and_nothing_is(home: Path, tmp_path: Path) -> None:
    """A daemon that was started for the new version goes with it, and so does what it saved."""
    daemon = Daemon(home)
    undo = Undo(daemon, tmp_path / "t1")
    undo.keep()
    undo.do("run", argv=["start", "ecosystem.config.js"])
    daemon.add("api")
    undo.do("run", argv=["save"])
    undo.do("delete")
    undo.restore()
    assert not daemon.running
    assert sorted(os.listdir(str(home))) == ["rpc.sock"]


def test_the_daemon_died_meanwhile(daemon: Daemon, tmp_path: Path) -> None:
    """Another one resurrects what is kept."""
    daemon.add("api")
    before = summaries(daemon)
    undo = Undo(daemon, tmp_path / "t1")
    undo.keep()
    daemon.stop()
    undo.do("delete")  # there is nothing to delete, and nothing is started for it
    assert not daemon.running
    undo.restore()
    assert daemon.running and summaries(daemon) == before


def test_saved_files_come_back_exactly(daemon: Daemon, tmp_path: Path) -> None:
    """Content, mode and time; one that was not there is gone."""
    daemon.add("api")
    dump, backup = daemon.home / "dump.pm2", daemon.home / "dump.pm2.bak"
    dump.write_bytes(b'[{"name": "api"}]\n')
    dump.chmod(0o640)
    os.utime(str(dump), ns=(1702291800123456789, 1702291800123456789))
    before = dump.stat()
    undo = Undo(daemon, tmp_path / "t1")
    undo.keep()
    undo.do("run", argv=["save"])
    backup.write_text("what it was before")
    assert dump.read_text() == "saved anew"
    for _ in range(2):
        undo.restore()
        after = dump.stat()
        assert dump.read_bytes() == b'[{"name": "api"}]\n' and not backup.exists()
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_the_kept_file_is_for_nobody_else(daemon: Daemon, tmp_path: Path) -> None:
    """It holds environments."""
    daemon.add("api")
    undo = Undo(daemon, tmp_path / "t1")
    undo.keep()
    path = undo.folder / undo.facts["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "SECRET" not in json.dumps(undo.facts)


def test_a_restore_without_a_record_of_before_does_nothing(daemon: Daemon, tmp_path: Path) -> None:
    """The power failed before anything was kept."""
    daemon.add("api")
    undo = Undo(daemon, tmp_path / "t1")
    undo.restore()
    assert undo.system.asked == [] and daemon.state() == {"api": "online"}


def test_a_command_that_fails_is_an_error_and_so_is_one_that_does_nothing(
    daemon: Daemon, tmp_path: Path
) -> None:
    """PM2 ends with 0 whatever a resurrect came to: it is looked at afterwards."""
    daemon.add("api")
    undo = Undo(daemon, tmp_path / "t1")
    undo.keep()
    undo.system.broken = ["delete"]
    with pytest.raises(pm2actions.Failed, match=r"ended with status 1: \[PM2\]\[ERROR\] no"):
        undo.do("delete")
    undo.system.broken = []
    undo.do("delete")
    undo.system._resurrect = lambda: None  # type: ignore[method-assign]
    with pytest.raises(pm2actions.Failed, match="PM2 has 0 of 1 processes of api back"):
        undo.restore()
    assert not (daemon.home / ".dump.pm2.deployguard").exists()


# -- evidence --------------------------------------------------------------------------------------


def test_the_logs_since_the_mark_and_the_table(daemon: Daemon, tmp_path: Path) -> None:
    """Also of a process that has another log since; no environment is in the table."""
    log, new, own = tmp_path / "api-out.log", tmp_path / "api-out-1.log", daemon.home / "pm2.log"
    log.write_text("before\n")
    own.write_text("daemon before\n")
    entry = daemon.add("api", pm_out_log_path=str(log), pm_err_log_path="/dev/null")
    manager = service(daemon.home)
    marks = pm2evidence.mark(manager, system)
    log.write_text("before\nafter\n")
    new.write_text("of the new one\n")
    own.write_text("daemon before\napi exited\n")
    entry["pm2_env"].update(pm_out_log_path=str(new), status="errored", exit_code=1)
    text = pm2evidence.logs(manager, marks, system, 10000, 5.0).decode()
    assert "after" in text and "of the new one" in text and "api exited" in text
    assert "before" not in text
    assert "==> %s <==" % new in text
    table = json.loads(pm2evidence.table(manager, system, 5.0))
    assert table["processes"][0]["status"] == "errored"
    assert "SECRET" not in json.dumps(table)


# -- new errors ------------------------------------------------------------------------------------


def test_new_errors_of_processes_that_are_deleted_and_started_anew(
    daemon: Daemon, tmp_path: Path
) -> None:
    """At the switch PM2 does not know them; where they logged is known from before."""
    log, new = tmp_path / "api-error.log", tmp_path / "api-error-1.log"
    log.write_text("Error: order 17 is gone\n")
    (daemon.home / "pm2.log").write_text("error: not ours\n")
    daemon.add("api", pm_out_log_path="/dev/null", pm_err_log_path=str(log))
    check: Any = {
        "log": {"pm2": service(daemon.home)},
        "history": 10000,
        "timeout": 5.0,
        "words": ["error"],
    }
    before = probe_logs.look(check, system)
    assert before.observed["shapes"] == ["Error: order <*> is gone"]
    daemon.processes.clear()
    check.update(mark=probe_logs.mark(check, before.observed, system), baseline=before.observed)
    assert set(check["mark"]["files"]) == {"/dev/null", str(log)}
    daemon.add("api", pm_out_log_path=str(tmp_path / "out.log"), pm_err_log_path=str(new))
    (tmp_path / "out.log").write_text("listening\n")
    new.write_text("Error: order 18 is gone\n")
    assert probe_logs.look(check, system).state == "healthy"
    new.write_text("Error: order 18 is gone\nError: cannot find module telemetry\n")
    found = probe_logs.look(check, system)
    assert found.state == "unhealthy"
    assert "in the logs of api in PM2 since the switch: Error: cannot find module" in found.message


def test_nobody_knows_where_it_logs(home: Path) -> None:
    """No daemon, and nothing known from before."""
    check: Any = {"log": {"pm2": service(home)}, "history": 1, "timeout": 5.0, "words": []}
    found = probe_logs.look(check, system)
    assert found.state == "unknown" and "PM2 does not say where api logs" in found.message
