"""`disk`: so much must stay free."""

from __future__ import annotations

from tests.guards.conftest import Shop


def test_too_little_is_refused(shop: Shop) -> None:
    """Bytes, inodes, and a folder that is not there."""
    root = str(shop.site.root)
    shop.guarded({"disk": {"path": root, "free": "900 TiB"}})
    shop.assert_refused("disk", "bytes free after the deploy; the plan asks for")
    shop.guarded({"disk": {"path": root, "inodes": 10**15}})
    shop.assert_refused("disk", "inodes free after the deploy")
    shop.guarded({"disk": {"path": f"{root}/nowhere", "free": "1 B"}})
    shop.assert_refused("disk", "is not a directory on the host")


def test_enough_passes(shop: Shop) -> None:
    """A byte and an inode."""
    shop.guarded({"disk": {"path": str(shop.site.root), "free": "1 B", "inodes": 1}})
    shop.assert_passes("disk", "room enough in")
