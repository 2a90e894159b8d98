"""Runs ``kubectl`` for one component, and reads what it says.

A *service* is how the cluster is asked, as data: ``program``, ``kubeconfig``, ``context``,
``namespace``, ``workloads`` (as ``deployment/api``), ``manifests`` (paths in the tree), ``cache``
(a directory for what kubectl remembers), ``env`` and ``timeout`` in seconds. Context and namespace
are always named: what is current in a kubeconfig may be another one by the time of a restore.

kubectl repeats in its messages what it was about to send, Secrets included. So nothing of what it
says leaves this module as it came: see :func:`reason` and :class:`Kubectl`.
"""

from __future__ import annotations

import json
import os
import pwd
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence

from deployguard.onhost.excerpts import bounded
from deployguard.onhost.system import Completed, System

Service = Dict[str, Any]
Object = Dict[str, Any]

_PATHS = ("/usr/local/bin", "/usr/bin", "/bin", "/snap/bin")
_OUTPUT = 64 * 1024 * 1024
_SAID = 1500
#: Commands that wait for something, and have a time limit of their own.
_WATCHING = ("rollout", "delete")
#: Shorter values are not looked for: they are in every text.
_SHORTEST = 4

#: What kubectl says when the API server is away, overloaded or behind; it may be back in a moment.
_AWAY = re.compile(
    r"was refused|Unable to connect to the server|i/o timeout|TLS handshake timeout"
    r"|connection reset|unexpected EOF|: EOF|no route to host|network is unreachable"
    r"|Client\.Timeout|context deadline exceeded|http2: client connection lost|no such host"
    r"|currently unable to handle the request|etcdserver: |object has been modified"
    r"|\((?:ServiceUnavailable|InternalError|Timeout|ServerTimeout|TooManyRequests|Conflict)\)"
)


class KubectlFailed(Exception):
    """kubectl did not do what was asked. ``away``: the API server may do it when asked again."""

    def __init__(self, message: str, hint: str = "", *, away: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.away = away


class Kubectl:
    """kubectl, for one context and namespace. ``secrets`` are hidden in all that it says."""

    def __init__(
        self, service: Service, system: System, secrets: Optional[Mapping[str, str]] = None
    ) -> None:
        self.service = service
        self.system = system
        self._secrets = dict(secrets or {})
        self._program = ""

    def hide(self, secrets: Mapping[str, str]) -> None:
        """Hide these, too: value to what is shown instead."""
        self._secrets.update(secrets)

    def text(self, words: Sequence[str], **options: Any) -> str:
        """What a command that has to end well prints. Raises :class:`KubectlFailed`."""
        done = self.run(words, **options)
        if not done.ok:
            raise self.failure(done)
        return done.text

    def objects(self, words: Sequence[str], **options: Any) -> List[Object]:
        """The objects that a command prints as JSON, however it puts them."""
        return read_objects(self.text([*words, "--output=json"], **options))

    def run(
        self,
        words: Sequence[str],
        *,
        documents: Optional[Sequence[Any]] = None,
        cwd: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> Completed:
        """Run a command to its end. ``documents`` are its input: Secrets are never arguments."""
        data = None
        if documents is not None:
            # Not as a List: kubectl has the server validate the fields of single objects only.
            data = "\n---\n".join(json.dumps(one) for one in documents).encode("ascii")
        timeout = self.service["timeout"] if timeout is None else timeout
        # What it has sent when we are killed may still be done; not the rest, behind a restore.
        bound = [] if words[0] in _WATCHING else ["--request-timeout=%ds" % max(timeout, 1)]
        return self.system.run(
            [*self._prefix(), *words, *bound],
            input=data,
            cwd=cwd,
            env=self._environment(),
            timeout=timeout,
            max_output=_OUTPUT,
            leashed=True,
        )

    def failure(self, done: Completed) -> KubectlFailed:
        """What went wrong, in a line or a few, with nothing secret in it."""
        said = (done.stderr or done.stdout).decode("utf-8", "replace")
        if done.timed_out:
            message = "kubectl did not end within %g s" % done.seconds
            return KubectlFailed("%s: %s" % (self._where(), message), away=True)
        away = bool(_AWAY.search(said))
        message = self.clean(reason(said)) or "kubectl ended with status %d" % done.status
        if away:
            hint = "see whether `kubectl --context %s get --raw /readyz` answers on the host"
            return KubectlFailed(
                "%s: %s" % (self._where(), message), hint % self.service["context"], away=True
            )
        return KubectlFailed(message)

    def clean(self, text: str) -> str:
        """The text with the values of all known Secrets hidden."""
        for value in sorted(self._secrets, key=len, reverse=True):
            if len(value) >= _SHORTEST:
                text = text.replace(value, self._secrets[value])
        return text

    def _where(self) -> str:
        return "the API of context %s" % self.service["context"]

    def _prefix(self) -> List[str]:
        self._program = self._program or program(self.service)
        return [
            self._program,
            "--kubeconfig=" + kubeconfig(self.service),
            "--context=" + self.service["context"],
            "--namespace=" + self.service["namespace"],
            "--cache-dir=" + self.service["cache"],
        ]

    def _environment(self) -> Dict[str, str]:
        # A dead-man has no HOME, and programs that sign in to a cluster look there.
        return {"HOME": _home(), **self.service.get("env", {})}


def program(service: Service) -> str:
    """The path of kubectl. Raises :class:`KubectlFailed`."""
    wanted = str(service["program"])
    found = [part for part in os.environ.get("PATH", "").split(":") if part.startswith("/")]
    places = list(dict.fromkeys([*found, *_PATHS]))
    candidates = [wanted] if "/" in wanted else [os.path.join(at, wanted) for at in places]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    if "/" in wanted:
        raise KubectlFailed("%s is not there, or no program" % wanted, "name the path of kubectl")
    raise KubectlFailed(
        "there is no kubectl in %s" % ":".join(places),
        "install it on this host, or name its path as `program`",
    )


def kubeconfig(service: Service) -> str:
    """The path of the kubeconfig; ``~/.kube/config`` of the user we run as where none is named."""
    return str(service.get("kubeconfig") or os.path.join(_home(), ".kube", "config"))


def _home() -> str:
    return pwd.getpwuid(os.geteuid()).pw_dir


def reason(said: str) -> str:
    """What kubectl gives as the reason, without the patch, object or bytes that it was about."""
    # "error when applying patch:\n{…}\nto:\n…\nfor: "FILE": the reason"
    said = re.sub(r"error when applying patch:\n.*?\nto:\n.*?\nfor: ", "", said, flags=re.DOTALL)
    # The JSON decoder shows the bytes around a mistake.
    said = re.sub(r",? error found in #\d+ byte of .*", "", said, flags=re.DOTALL)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Warning: ", "Waiting for "))]
    kept = bounded("\n".join(lines).encode("utf-8", "replace"), _SAID)
    return kept.decode("utf-8", "replace")


def read_objects(text: str) -> List[Object]:
    """One object, a list of them, several one after another, or nothing."""
    decoder = json.JSONDecoder()
    found: List[Object] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at >= len(text):
            return found
        try:
            one, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise KubectlFailed("kubectl printed no JSON: %s" % error) from error
        if str(one.get("kind", "")).endswith("List") and "items" in one:
            found += one["items"] or []
        else:
            found.append(one)
