"""Mail over SMTP: encrypted, signed in where asked, the messages of an incident in one thread.

Each recipient is a delivery of its own, so that one whose server asks to come back later costs the
others nothing; all see the same message, with the same ``Message-ID`` whatever is retried. A server
that took a message whose answer was lost gets it again under that id, and mail systems that drop
doubles do so by it; not all do.
"""

from __future__ import annotations

import hashlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate

from deployguard.delivery import Rejected, Undelivered
from deployguard.notify.http import TIMEOUT, short
from deployguard.notify.message import Attempt, Message, Receipt
from deployguard.notify.settings import ChannelSettings
from deployguard.secret import Secret

__all__ = ["Email"]

MOST_SUBJECT = 200
_PORTS = {"starttls": 587, "implicit": 465, "none": 25}


class Email:
    """See the module."""

    def __init__(self, settings: ChannelSettings) -> None:
        self._settings = settings
        self._options = settings.options

    def send(self, attempt: Attempt) -> Receipt:
        message, known = attempt.message, attempt.receipt or {}
        password = self._settings.secret("password")
        identifier = self._id(message)
        receipt = {
            "first": known.get("first", identifier),
            "last": identifier,
            "subject": known.get("subject", _line(message.title)),
        }
        mail = self._mail(message, known, receipt)
        problem: str | None = None
        final = False
        try:
            with self._server(attempt, password) as server:
                server.send_message(mail, self._options["from"], [message.recipient])
        except smtplib.SMTPRecipientsRefused as refused:
            code, words = next(iter(refused.recipients.values()))
            problem, final = f"{code} {_said(words)}", code >= 500
        except smtplib.SMTPNotSupportedError as missing:
            problem, final = str(missing), True
        except smtplib.SMTPResponseException as answer:
            problem, final = f"{answer.smtp_code} {_said(answer.smtp_error)}", _lasting(answer)
        except ssl.SSLCertVerificationError as untrusted:
            problem, final = f"its certificate is not trusted: {untrusted.verify_message}", True
        except (OSError, smtplib.SMTPException) as failure:
            problem = f"{type(failure).__name__}: {failure}"
        # Raised outside of the blocks: what the library raises holds the connection.
        if problem is None:
            return receipt
        said = f"the mail server {self._options['host']}: {_clean(problem, password)}"
        if final:
            raise Rejected(said, "mend the channel, then `deployguard notify flush --rejected`")
        raise Undelivered(said)

    def _id(self, message: Message) -> str:
        """The same for all recipients of a message."""
        number = message.key.rpartition("/")[2]
        about = f"{message.service}|{message.environment}|{message.subject}|{number}"
        digest = hashlib.sha256(f"{self._settings.name}|{about}".encode()).hexdigest()[:32]
        return f"<deployguard.{digest}@{self._options['from'].rpartition('@')[2]}>"

    def _mail(self, message: Message, known: Receipt, receipt: Receipt) -> EmailMessage:
        mail = EmailMessage(policy=SMTP)
        subject = str(receipt["subject"])
        mail["Subject"] = f"Re: {subject}" if known else subject
        mail["From"] = self._options["from"]
        mail["To"] = ", ".join(self._options["to"])
        mail["Date"] = formatdate(message.at)
        mail["Message-ID"] = receipt["last"]
        if known:
            mail["In-Reply-To"] = known["last"]
            references = dict.fromkeys((known["first"], known["last"]))
            mail["References"] = " ".join(references)
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Deployguard"] = message.subject
        mail.set_content(f"{message.title}\n\n{message.text}".strip() + "\n")
        return mail

    @contextmanager
    def _server(self, attempt: Attempt, password: Secret | None) -> Iterator[smtplib.SMTP]:
        """A connection that is cut when the deadline is over: a server that trickles would
        otherwise meet the timeout of every single wait."""
        options = self._options
        host, tls = str(options["host"]), str(options["tls"])
        port = int(options.get("port") or _PORTS[tls])
        context = ssl.create_default_context(cafile=options.get("ca_file"))
        left = attempt.left
        timeout = min(TIMEOUT, left)
        server: smtplib.SMTP
        if tls == "implicit":
            server = smtplib.SMTP_SSL(timeout=timeout, context=context)
        else:
            server = smtplib.SMTP(timeout=timeout)
        watch = threading.Timer(left, _cut, (server,))
        watch.daemon = True
        watch.start()
        try:
            server._host = host  # type: ignore[attr-defined]  # noqa: SLF001 - as SMTP(host) does
            server.connect(host, port)
            if tls == "starttls":
                server.starttls(context=context)
            if options.get("user") is not None and password is not None:
                _sign_in(server, str(options["user"]), password.reveal())
            yield server
            with suppress(OSError, smtplib.SMTPException):
                server.quit()  # it has taken the message; how it says goodbye does not matter
        finally:
            watch.cancel()
            server.close()


def _sign_in(server: smtplib.SMTP, user: str, password: str) -> None:
    """With one mechanism: a password that is wrong is not tried with all of them, which may lock
    the account."""
    server.ehlo_or_helo_if_needed()
    if "PLAIN" not in server.esmtp_features.get("auth", "").upper().split():
        server.login(user, password)
        return
    server.user, server.password = user, password
    server.auth("PLAIN", server.auth_plain)


def _cut(server: smtplib.SMTP) -> None:
    with suppress(OSError, AttributeError):
        assert server.sock is not None
        server.sock.shutdown(socket.SHUT_RDWR)


def _lasting(answer: smtplib.SMTPResponseException) -> bool:
    """Whether a server will say the same again."""
    return answer.smtp_code >= 500


def _said(words: bytes | str) -> str:
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    return short(" ".join(text.split()), 300)


def _clean(text: str, password: Secret | None) -> str:
    return text.replace(password.reveal(), "******") if password is not None else text


def _line(text: str) -> str:
    return short(" ".join(text.split()), MOST_SUBJECT)
