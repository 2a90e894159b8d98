"""Keeps what people changed by hand, before a deploy takes it away.

The bundle is a tar.gz in the state directory with the files as they were; it is made before the
switch, never removed by us, and named in the answer, so that whoever made the changes finds them.
"""

from __future__ import annotations

import os
from typing import Dict, List, Sequence, Tuple

from deployguard.onhost import durable
from deployguard.onhost.places import State

#: component, root of its live tree, paths in it
Change = Tuple[str, str, Sequence[str]]


def save(state: State, transaction: str, changes: Sequence[Change]) -> Dict[str, str]:
    """Bundle the paths of each component; answers component to the bundle's path."""
    bundles: Dict[str, str] = {}
    for component, root, paths in changes:
        present = [path for path in paths if os.path.lexists(os.path.join(root, path))]
        if present:
            bundles[component] = _bundle(state, transaction, component, root, present)
    return bundles


def _bundle(state: State, transaction: str, component: str, root: str, paths: List[str]) -> str:
    import tarfile

    directory = os.path.join(state.root, "saved")
    if not os.path.isdir(directory):
        durable.make_directory(directory, 0o700)
    path = os.path.join(directory, "%s-%s.tar.gz" % (transaction, component))
    with durable.writing(path) as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name in sorted(paths):
            tar.add(os.path.join(root, name), name, recursive=False)
    return path
