"""Hosts that wait for a person behind a point of no return, as a watch and a response see them."""

from __future__ import annotations

from tests.migrations.conftest import Pair


def test_what_waits_for_a_person_is_told_once(pair: Pair) -> None:
    """One host does not serve and both are held: told is that they wait, in the incident that the
    deploy has opened, and not that a check fails. There is no way out until somebody has chosen."""
    pair.release("v2", "2", BROKEN="web2")
    pair.migration("irreversible")
    assert pair.apply("v2").code == 4
    pair.write("v2", watch={"failures": 1, "group_wait": 0})
    seen = pair.run("watch", pair.file, "--for", "1s", "--interval", "5s", "--json")
    assert seen.code == 9, seen.err
    (notice,) = [line for line in seen.lines if line["type"] == "notice"]
    assert {(one["host"], one["name"]) for one in notice["fires"]} == {
        ("web1", "restore"),
        ("web2", "restore"),
    }
    (last,) = [line for line in seen.lines if line["type"] == "watch"]
    assert any(name.startswith("web2 web2 ") for name in last["failing"])
    (incident,) = pair.run("incident", "list", "--json").lines
    assert incident["origin"] == "deploy"
    shown = pair.run("incident", "show", incident["id"], "--json").lines[0]
    (joined,) = [e["text"] for e in shown["timeline"] if e["kind"] == "joined"]
    assert joined.startswith("seen by the watch: web1 restore: ")

    looked = pair.run("incident", "respond", pair.file, "--assess", "--json")
    assert looked.code == 0, looked.err
    options = looked.lines[1]["options"]
    assert not any(option["possible"] for option in options)
    assert f"deployguard recover {pair.file}" in options[0]["impossible"][0]
    chosen = pair.run("incident", "respond", pair.file, "--choose", "rollback", "--yes")
    assert (chosen.code, "rollback is not possible" in chosen.err) == (5, True)
