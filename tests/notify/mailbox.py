"""A real mail server: aiosmtpd with TLS and a password."""

from __future__ import annotations

import socket
import ssl
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd import smtp
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from tests.servers.certificates import Authority

__all__ = ["Mailbox"]

USER = "deploys"


class Mailbox:
    """Takes mail for anybody; ``answers`` are given instead to the next messages.

    A message with a ``Message-ID`` that was there before is dropped, as many mail systems do;
    ``taken`` has every one that came, ``mails`` those that a person sees.
    """

    secret = "correct-horse-battery-staple-587"

    def __init__(self, folder: Path, *, tls: str = "starttls") -> None:
        authority = Authority(folder)
        pair = authority.issue("localhost")
        self.ca_file = authority.ca_file
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.certificate, pair.key)
        self.taken: list[tuple[str, EmailMessage]] = []
        self.answers: list[str] = []
        self.sessions: list[bool] = []
        self.signed_in: list[str] = []
        options: dict[str, Any] = {"ssl_context": context} if tls == "implicit" else {}
        if tls == "starttls":
            options |= {"tls_context": context, "require_starttls": True}
        if tls != "none":
            options |= {"auth_required": True, "authenticator": self._authenticate}
            options["auth_require_tls"] = tls == "starttls"
        self._controller = Controller(self, hostname="127.0.0.1", port=0, **options)
        self._controller.port = self._free_port()
        self._controller.start()
        self.port = self._controller.port

    @staticmethod
    def _free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def _authenticate(
        self, server: smtp.SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        good = isinstance(data, LoginPassword) and data.password.decode() == self.secret
        if good:
            self.signed_in.append(data.login.decode())
        return AuthResult(success=good, handled=False)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: smtp.SMTP, session: Session, envelope: Envelope, address: str, _: list[str]
    ) -> str:
        if self.answers and self.answers[0].startswith("RCPT "):
            return self.answers.pop(0).removeprefix("RCPT ")
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: smtp.SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.answers:
            return self.answers.pop(0)
        self.sessions.append(server.transport.get_extra_info("sslcontext") is not None)
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=default)
        assert isinstance(mail, EmailMessage)
        self.taken += [(address, mail) for address in envelope.rcpt_tos]
        return "250 OK"

    @property
    def mails(self) -> list[tuple[str, EmailMessage]]:
        """What each person sees."""
        seen: dict[tuple[str, str], tuple[str, EmailMessage]] = {}
        for address, mail in self.taken:
            seen.setdefault((address, str(mail["Message-ID"])), (address, mail))
        return list(seen.values())

    def close(self) -> None:
        """Stop."""
        self._controller.stop()
