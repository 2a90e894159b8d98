"""A check as data, and what one look at it found: what the probes of all kinds share.

A check is data, made on the controller by ``deployguard.health.checks`` (:class:`CheckData`); a
sample is data too (:class:`Sample`). A sample is ``healthy``, ``unhealthy``, or ``unknown`` when
there is no telling: the process manager does not answer, a name does not resolve. ``final`` says
that the state cannot heal by itself, so that nobody waits for the deadline in vain.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, TypedDict, Union

from deployguard.onhost.logs.source import Source

HEALTHY = "healthy"
UNHEALTHY = "unhealthy"
UNKNOWN = "unknown"

# A probe that outlives its timeout gets this long to die of SIGTERM.
KILL_GRACE = 0.5


class ProcessManager(TypedDict, total=False):
    """How to ask for the state of the service; ``driver`` says which of the rest is there.

    ``systemd``: ``unit``, ``scope`` (``system`` or ``user``) and ``env``. ``process``:
    ``pid_file``, a JSON file with ``pid`` and ``start_time``. ``command``: ``argv`` and ``env``,
    status 0 means running. ``pm2``: ``names``, ``home``, ``user``, and ``reloaded`` where a deploy
    reloads them. ``compose``: ``tool``, ``project``, ``env``; ``record``, the file with the names
    of the services; ``one_shot``, those that run to their end; in a restore ``excused``, those that
    were down before the deploy. ``kubernetes``: ``service``, see
    :mod:`deployguard.onhost.kubernetes.kubectl`.
    """

    driver: str
    unit: str
    scope: str
    pid_file: str
    argv: List[str]
    env: Dict[str, str]
    names: List[str]
    home: str
    user: str
    reloaded: bool
    tool: str
    project: str
    record: str
    one_shot: List[str]
    excused: List[str]
    service: Dict[str, Any]


class _CheckBase(TypedDict):
    id: str
    component: str
    kind: str
    name: str
    critical: bool
    timeout: float
    interval: float
    deadline: float
    min_healthy_time: float


class CheckData(_CheckBase, total=False):
    """A check as the controller sends it. Times are seconds.

    ``id`` is unique on the host, such as ``backend/http``; ``kind`` says which probe makes it.
    ``timeout`` bounds one sample; the others are explained in
    :mod:`deployguard.onhost.probes.verdict`. ``service`` is that of a compose stack which the check
    is about. Then, by kind:

    ``process``
        ``manager``: :class:`ProcessManager`.
    ``port``, ``tcp``
        ``address`` and ``number``.
    ``http``
        ``url``; ``status``, the accepted ones; ``body``, a text it must contain; ``json``, dotted
        field to expected value; ``headers``; ``verify_tls``. ``versioned`` names the fields of
        ``json`` that hold the version, and ``body_versioned`` says that ``body`` does: what they
        expect is right for the new version only, see :mod:`deployguard.onhost.probes.healthcheck`.
    ``command``
        ``argv``, ``env`` and ``directory``.
    ``container``
        ``manager`` and ``service``.
    ``postgres``, ``mysql``, ``redis``
        ``address`` and ``number``, or ``socket``; ``user``, ``database``; ``tls``, one of
        ``wire.TLS_MODES``, and ``ca_file``; ``query`` (of Redis ``argv``) and ``expect``, the text
        it must give; ``credential``, where the password comes from, in words; ``password_file``.
        ``free_connections`` of PostgreSQL is a number, or a percentage as text.
    ``prometheus``
        ``url``, ``query``; the bounds ``max`` and ``min``; ``max_increase`` and ``max_decrease``
        against the baseline, a number or a percentage as text; ``time``, the moment that is asked
        about, in UTC seconds; ``user``, ``password_file`` and ``verify_tls``.
    ``tls``
        ``address``, ``number``, ``server_name``, ``ca_file``, ``valid_for`` in seconds.
    ``logs``
        ``log``: :class:`deployguard.onhost.logs.source.Source`; ``history`` in bytes, ``words``,
        ``ignore``, ``max_new``.

    ``secret`` holds what is to be in no journal: ``password``, ``token``. ``baseline`` and ``mark``
    are added on the host: what the look before the deploy observed, and where a log ended when the
    service had stopped.
    """

    manager: ProcessManager
    service: str
    address: str
    number: int
    url: str
    status: List[int]
    body: str
    body_versioned: bool
    json: Dict[str, Any]
    versioned: List[str]
    headers: Dict[str, str]
    verify_tls: bool
    argv: List[str]
    env: Dict[str, str]
    directory: str
    socket: str
    user: str
    database: str
    tls: str
    ca_file: str
    query: str
    expect: str
    credential: str
    password_file: str
    free_connections: Union[int, str]
    max: float
    min: float
    max_increase: Union[float, str]
    max_decrease: Union[float, str]
    time: float
    server_name: str
    valid_for: float
    log: Source
    history: int
    words: List[str]
    ignore: List[str]
    max_new: int
    secret: Dict[str, str]
    baseline: Dict[str, Any]
    mark: Optional[Dict[str, Any]]


class Sample(TypedDict):
    """What one look found. ``at`` is UTC seconds, ``seconds`` how long the look took.

    ``observed`` of a process holds, where its manager knows them, ``restarts`` (a count that only a
    start by hand sets back; one that is due, ``restart_due``, is in it) and ``instance`` (which
    changes when the process is another one); of an HTTP check ``status``, ``fields`` (the dotted
    fields that were asked for) and ``mismatches``.
    """

    check: str
    state: str
    message: str
    final: bool
    observed: Dict[str, Any]
    at: float
    seconds: float


class Finding(NamedTuple):
    """The answer of one probe, before it is dressed as a :class:`Sample`."""

    state: str
    message: str
    final: bool
    observed: Dict[str, Any]


def finding(
    state: str, message: str, final: bool = False, observed: Optional[Dict[str, Any]] = None
) -> Finding:
    """A :class:`Finding` with the usual defaults."""
    return Finding(state, message, final, observed or {})


def connection_state(error: OSError) -> str:
    """Whether a failed connection says something about the other end, or only about us."""
    import errno

    ours = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EACCES, errno.EPERM)
    return UNKNOWN if error.errno in ours else UNHEALTHY
