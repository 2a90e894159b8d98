"""The host is reached by SSH. The only file that knows fabric and paramiko.

fabric resolves aliases and jump hosts from the user's ssh_config and opens the connection. What
it would decide for itself (which host keys to trust, which keys to offer, how long to try) is
decided here: a deploy must not trust a host it has never seen, nor hang on one that is gone.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import fabric
import paramiko
import tenacity
from paramiko.pkey import PublicBlob, UnknownKeyType
from paramiko.ssh_exception import IncompatiblePeer

from deployguard.errors import Unreachable
from deployguard.plan.model import Host
from deployguard.transport import known_hosts, log, payload
from deployguard.transport.base import Transport
from deployguard.transport.channel import ChannelLink
from deployguard.transport.known_hosts import Judge, NotTrusted
from deployguard.transport.launch import greet
from deployguard.transport.session import Session
from deployguard.transport.ssh_config import PORT, USER, config_files, read_config

__all__ = ["SshTransport"]

# What paramiko logs comes as an exception as well; without a handler it would print tracebacks.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

#: What may be on its way to us unread; the default of 2 MiB stalls a fast network.
_WINDOW = 8 * 1024 * 1024
_PACKET = 128 * 1024
#: Seconds the network may be silent before the connection counts as lost.
_SILENCE = 30
#: First choice where the server has them: the least work for Python, and sound.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
#: Linux only.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


class SshTransport(Transport):
    """Runs the host program through the host's own sshd."""

    def connect(
        self, host_name: str, host: Host, *, program: payload.Program | None = None
    ) -> Session:
        program = program or payload.host_program()
        bootstrap = program.bootstrap(host.state_directory)
        way = _Way(host_name, host)
        connection = way.open()
        become = host.become and connection.user != "root"
        argv = payload.command(host.python, bootstrap, become=become)
        try:
            channel = connection.create_session()
            channel.exec_command(payload.shell_line(argv))
        except (paramiko.SSHException, OSError, EOFError) as error:
            way.close()
            reason, hint = _explain(error, "")
            raise Unreachable(host_name, reason, hint=hint) from error
        link = ChannelLink(channel, way.close, broken=(EOFError, paramiko.SSHException))
        return greet(host_name, host, link, program, bootstrap)


class _Way:
    """The connections to a host: those to its jump hosts first."""

    def __init__(self, host_name: str, host: Host) -> None:
        self._name = host_name
        self._host = host
        self._deadline = time.monotonic() + host.connect_deadline
        self._connections: list[fabric.Connection] = []
        self._sockets: list[socket.socket] = []
        self._commands: list[subprocess.Popen[bytes]] = []
        self._trying = host_name

    def open(self) -> fabric.Connection:
        """The connection to the host itself; tries again for as long as that may help."""
        retrying = tenacity.Retrying(
            stop=tenacity.stop_before_delay(self._host.connect_deadline),
            wait=tenacity.wait_exponential(0.1, max=2.0) + tenacity.wait_random(0, 0.3),
            retry=tenacity.retry_if_exception(_may_pass),
            before_sleep=self._note,
            reraise=True,
        )
        try:
            connection = retrying(self._attempt)
        except (NotTrusted, paramiko.SSHException, OSError, EOFError, ValueError) as error:
            reason, hint = _explain(error, self._trying)
            raise Unreachable(self._name, reason, hint=hint) from error
        log.debug("connected", host=self._name, address=connection.host, port=connection.port)
        return connection

    def close(self) -> None:
        for end in self._sockets:
            # Else paramiko's thread notices only at its next look, a tenth of a second later.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for connection in reversed(self._connections):
            # One behind a jump host finds its way out gone.
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                connection.client.close()
        for command in self._commands:
            command.kill()
            command.wait()
        self._sockets, self._connections, self._commands = [], [], []

    def _note(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.debug("connecting again", host=self._name, attempt=state.attempt_number, error=error)

    def _attempt(self) -> fabric.Connection:
        host = self._host
        try:
            via = host.jump.split(",") if host.jump else []
            return self._reach(host.address or self._name, host.user, host.port, via)
        except BaseException:
            self.close()
            raise

    def _reach(
        self,
        target: str,
        user: str | None,
        port: int | None,
        via: list[str],
        seen: tuple[tuple[str, int], ...] = (),
    ) -> fabric.Connection | None:
        """A connection to ``target`` through ``via``, else through what ssh_config says.

        None for a place that has been ``seen`` on this way: `Host *` with a ProxyJump is about
        the jump host itself as well.
        """
        config = _config(self._host.ssh_config)
        made = fabric.Connection(target, user=user, port=port, config=config, gateway=False)
        if (made.host, made.port) in seen:
            return None
        configured = made.ssh_config.get("proxyjump", "none").split(",")
        hops = [hop.strip() for hop in via or configured if hop.strip() != "none"]
        if hops:
            here = (*seen, (made.host, made.port))
            made.gateway = self._reach(hops[-1], None, None, hops[:-1], here)
        self._open(made, is_target=not seen)
        return made

    def _open(self, made: fabric.Connection, *, is_target: bool) -> None:
        self._trying = f"{made.host} port {made.port}"
        if not is_target:
            self._trying = f"the jump host {self._trying}"
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time was left")
        # Half of the time at most: an attempt may meet a host that has just gone down.
        patience = min(left, max(5.0, self._host.connect_deadline / 2))
        keys = _HostKeys(self._host, made)
        offered = [self._host.identity_file] if self._host.identity_file else []
        configured = made.ssh_config.get("identityfile", [])
        only = made.ssh_config.get("identitiesonly", "no").lower() == "yes"
        made.connect_timeout = None
        made.connect_kwargs = {
            "timeout": patience,
            "banner_timeout": patience,
            "auth_timeout": patience,
            "channel_timeout": patience,
            "auth_strategy": _Identity(made.user, [*offered, *configured], only),
            "transport_factory": keys.transport,
        }
        command = made.ssh_config.get("proxycommand", "none")
        if not made.gateway and command != "none":
            command = command.replace(PORT, str(made.port)).replace(USER, made.user)
            self._trying += f" through `{command}`"
            made.connect_kwargs["sock"] = self._proxy(command)
        elif not made.gateway:
            made.connect_kwargs["sock"] = self._dial(made.host, made.port, patience)
        made.client.set_missing_host_key_policy(keys)
        self._connections.append(made)
        made.open()
        made.transport.set_keepalive(_SILENCE // 2)

    def _proxy(self, command: str) -> socket.socket:
        # Not paramiko's: it reads from a command that has ended for ever, at full speed.
        ours, theirs = socket.socketpair()
        self._sockets.append(ours)
        argv = ["/bin/sh", "-c", f"exec {command}"]
        with theirs:
            self._commands.append(
                subprocess.Popen(
                    argv,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        return ours

    def _dial(self, address: str, port: int, patience: float) -> socket.socket:
        # Not left to paramiko: it gives up on IPv4 when the host's IPv6 address has no route.
        made = socket.create_connection((address, port), patience)
        opened = _PromptSocket(fileno=made.detach())
        self._sockets.append(opened)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A network that is cut says nothing. Without these it is noticed a quarter of an hour on.
        for option, value in (
            ("TCP_USER_TIMEOUT", _SILENCE * 1000),
            ("TCP_KEEPIDLE", _SILENCE // 2),
            ("TCP_KEEPINTVL", _SILENCE // 6),
            ("TCP_KEEPCNT", 3),
        ):
            if hasattr(socket, option):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        return opened


class _PromptSocket(socket.socket):
    """Acknowledges at once.

    sshd leaves Nagle's algorithm on where there is no terminal: its second small packet waits for
    our acknowledgement of the first, which the kernel holds back for 40 ms. That was two thirds of
    the time to connect, and would be part of every answer that follows an event.
    """

    def recv(self, size: int, flags: int = 0) -> bytes:
        received = super().recv(size, flags)
        if _QUICKACK is not None:
            # The kernel forgets it, so every time anew.
            self.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        return received


class _HostKeys(paramiko.MissingHostKeyPolicy):
    """Whether the host is the one it should be. paramiko is given no known keys to decide by."""

    def __init__(self, host: Host, made: fabric.Connection) -> None:
        found = made.ssh_config
        alias = found.get("hostkeyalias")
        users = found.get("userknownhostsfile", "~/.ssh/known_hosts")
        system = found.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")
        self._judge = Judge(
            alias or known_hosts.name_of(made.host, made.port),
            [host.known_hosts] if host.known_hosts else f"{users} {system}".split(),
            host.host_key_checking,
        )

    def transport(self, sock: Any, **options: Any) -> paramiko.Transport:
        """What paramiko speaks SSH with, asking for the kinds of key we can recognise first."""
        made = paramiko.Transport(
            sock, default_window_size=_WINDOW, default_max_packet_size=_PACKET, **options
        )
        wanted, kinds = made.get_security_options(), self._judge.kinds
        wanted.key_types = sorted(wanted.key_types, key=lambda kind: kind not in kinds)
        wanted.ciphers = sorted(wanted.ciphers, key=lambda cipher: cipher not in _CIPHERS)
        return made

    def missing_host_key(self, _client: object, _hostname: str, key: paramiko.PKey) -> None:
        self._judge.judge(key.get_name(), key.get_base64())


class _Identity:
    """Which keys to offer, in which order: a server counts them, and hangs up after a few."""

    def __init__(self, user: str, files: list[str], only: bool) -> None:
        self._user = user
        self._configured = bool(files)
        self._files = [Path(file).expanduser() for file in files or _DEFAULT_KEYS]
        self._only = only
        self._tried: list[str] = []
        self._notes: list[str] = []

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Called by paramiko once the host key is accepted."""
        agent = paramiko.Agent()
        try:
            for label, key in self._keys({k.asbytes(): k for k in agent.get_keys()}):
                self._tried.append(label)
                try:
                    if not transport.auth_publickey(self._user, key):
                        return
                    self._notes.append("the server wants a second factor, which a deploy has not")
                    break
                except paramiko.BadAuthenticationType as error:
                    self._notes.append(f"the server only takes {', '.join(error.allowed_types)}")
                    break
                except paramiko.AuthenticationException:
                    if not transport.is_active():
                        break  # It has hung up.
        finally:
            agent.close()
        if not transport.is_active() and len(self._tried) <= 1:
            raise EOFError("the server hung up while we logged in")
        tried = f"tried {', '.join(self._tried)}" if self._tried else "there was no key to try"
        notes = "".join(f"; {note}" for note in self._notes)
        raise NotTrusted(
            f"login as {self._user} was refused: {tried}{notes}",
            f"try `ssh -v`; is the public key in ~{self._user}/.ssh/authorized_keys?",
        )

    def _keys(self, agent: dict[bytes, paramiko.AgentKey]) -> Iterator[tuple[str, paramiko.PKey]]:
        """Configured files, then what else the agent has; default files come after the agent."""
        if self._configured:
            yield from self._from_files(agent)
        if not self._only:
            for key in agent.values():
                label = f"agent key {known_hosts.fingerprint(key.get_base64())}"
                yield label, cast(paramiko.PKey, key)
        if not self._configured:
            yield from self._from_files(agent)

    def _from_files(
        self, agent: dict[bytes, paramiko.AgentKey]
    ) -> Iterator[tuple[str, paramiko.PKey]]:
        for file in self._files:
            public = _public_part(file)
            if public in agent:
                yield f"{file} (agent)", cast(paramiko.PKey, agent.pop(public))
                continue
            try:
                yield str(file), _load(file, file.stat().st_mtime_ns)
            except FileNotFoundError:
                if self._configured:
                    self._notes.append(f"{file} is not there")
            except (TypeError, paramiko.PasswordRequiredException):
                self._notes.append(
                    f"{file} has a passphrase and is not in the agent (ssh-add {file})"
                )
            except (OSError, ValueError, paramiko.SSHException, UnknownKeyType) as error:
                self._notes.append(f"{file} cannot be used: {_said(error)}")


@lru_cache(maxsize=16)
def _parsed(files: tuple[tuple[Path, int], ...]) -> paramiko.SSHConfig:
    text = "".join(read_config(path) + "Host *\n" for path, _ in files)
    return paramiko.SSHConfig.from_text(text)


def _config(given: str | None) -> fabric.Config:
    """The ssh_config, parsed once for a whole fleet, in a configuration of the connection's own.

    fabric builds that anew when it is written to, and is empty meanwhile: a thread that reads one
    which another thread's connection has as well finds that there is no `port`.
    """
    files = [path for path in config_files(given) if given is not None or path.is_file()]
    parsed = _parsed(tuple((path, path.stat().st_mtime_ns) for path in files))
    # Lazy: fabric's own files and environment variables are not ours to read, and cost 30 ms.
    return fabric.Config(ssh_config=parsed, lazy=True)


@lru_cache(maxsize=64)
def _load(file: Path, _changed: int) -> paramiko.PKey:
    return paramiko.PKey.from_path(file)


def _public_part(file: Path) -> bytes:
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = file.with_name(file.name + ".pub").read_text().split()[1]
        return PublicBlob.from_string(f"x {text}").key_blob
    return b""


def _may_pass(error: BaseException) -> bool:
    """Whether to try again: a host that reboots, a full queue, a lost packet."""
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, paramiko.ChannelException):
        return error.code == 2  # The jump host could not connect; 1 is that it may not.
    if isinstance(error, NotTrusted | paramiko.AuthenticationException | IncompatiblePeer):
        return False
    if isinstance(error, FileNotFoundError | PermissionError):
        return False  # Of a file here.
    return isinstance(error, paramiko.SSHException | OSError | EOFError)


def _explain(error: Exception, trying: str) -> tuple[str, str]:
    """What is wrong, and the mend if there is one."""
    if isinstance(error, NotTrusted):
        return str(error), error.hint
    if isinstance(error, socket.gaierror):
        return f"{trying}: {error.strerror}", "is `address` right, or is it a Host of ssh_config?"
    if isinstance(error, IncompatiblePeer):
        return f"{trying}: {error}", "the server only offers algorithms that are long unsafe"
    where = f"{trying}: " if trying else ""
    return f"no SSH connection: {where}{_said(error)}", ""


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
