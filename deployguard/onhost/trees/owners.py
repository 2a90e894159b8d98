"""Whose a new tree is to be."""

from __future__ import annotations

import os
import pwd
from typing import Any, Dict, Optional, Tuple

from deployguard.onhost.places import NotManageable


def owner_of(target: Dict[str, Any], root: Optional[str]) -> Optional[Tuple[int, int]]:
    """Numeric owner and group for the new tree; ``None`` keeps the artifact's own.

    Raises :class:`NotManageable` for a name the host does not know.
    """
    import grp

    if target["owner"] == "artifact":
        return None
    uid, gid = os.geteuid(), os.getegid()
    if root is not None:
        info = os.lstat(root)
        uid, gid = info.st_uid, info.st_gid
    try:
        if target["owner"] is not None:
            user = pwd.getpwnam(target["owner"])
            uid, gid = user.pw_uid, user.pw_gid
        if target["group"] is not None:
            gid = grp.getgrnam(target["group"]).gr_gid
    except KeyError as error:
        raise NotManageable(
            "the host has no user or group %s" % error, "create it, or mend owner and group"
        ) from error
    return uid, gid
