"""`structure`: files that only production has, and files that must not be lost."""

from __future__ import annotations

from tests.guards.conftest import Shop


def test_what_only_the_host_has_is_refused(shop: Shop) -> None:
    """A tree that somebody else made is taken over only when nothing of it is lost."""
    other = shop.site.root / "grown"
    (other / "src" / "db").mkdir(parents=True)
    (other / "src" / "db" / "connection.js").write_text("only here\n")
    (other / "VERSION").write_text("v0")
    shop.guarded(path=str(other), layout="in_place")
    with shop.untouched():
        refused = shop.apply()
    assert refused.code == 5, refused.err
    (finding,) = refused.lines[-1]["findings"]
    assert finding["name"] == "structure"
    assert "src/db/connection.js" in finding["message"]
    assert (other / "src" / "db" / "connection.js").read_text() == "only here\n"


def test_a_release_that_lacks_what_it_needs_is_refused(shop: Shop) -> None:
    """A build that went wrong is told before the service stops."""
    shop.guarded({"structure": {"needs": ["server.py", "index.js"]}})
    shop.assert_refused("structure", "the release of web does not have index.js")


def test_what_is_protected_stays(shop: Shop) -> None:
    """Also where deployguard itself deployed it."""
    (shop.site.root / "releases" / "v2" / "VERSION").unlink()
    shop.guarded({"structure": {"protect": ["VERS*"]}})
    shop.assert_refused("structure", "web: VERSION would be gone, and the plan protects it")
    shop.guarded({"structure": {"removed": 0}})
    shop.assert_refused("structure", "1 paths would be gone, and 0 are the most: VERSION")


def test_a_whole_release_passes(shop: Shop) -> None:
    """It has what it needs and takes nothing away."""
    shop.guarded({"structure": {"needs": ["server.py"], "protect": ["VERSION"], "removed": 0}})
    shop.assert_passes("structure", "the release has server.py", "0 paths would be gone")
