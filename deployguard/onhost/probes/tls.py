"""A look at a certificate: does a client that checks it get in, and for how much longer.

The connection is made as a careful client makes it: the chain up to an authority that this host
trusts, the name, the dates. Where that fails the certificate is fetched once more without looking,
because "certificate verify failed" sends nobody to the right place.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Callable, Dict, List

from deployguard.onhost.probes.base import (
    HEALTHY,
    UNHEALTHY,
    UNKNOWN,
    CheckData,
    Finding,
    connection_state,
    finding,
)
from deployguard.onhost.probes.conversation import place
from deployguard.onhost.protocols import wire
from deployguard.onhost.protocols.der import Certificate, read_certificate
from deployguard.onhost.system import System

_DAY = 86400.0
#: Of OpenSSL's reasons (X509_V_ERR_…), those that have words of their own here.
_NOT_YET, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64
_NO_ISSUER = (2, 18, 19, 20, 21)
_SHOWN_NAMES = 5


def look(check: CheckData, system: System) -> Finding:
    """One look. ``observed``: ``not_after`` (UTC seconds), ``names`` and ``issuer``."""
    import ssl

    left = wire.countdown(system.monotonic, check["timeout"])
    at = place(check)
    try:
        certificate = read_certificate(_fetch(check, "verify-full", left))
    except ssl.SSLCertVerificationError as error:
        return _refused(check, system, error, left)
    except wire.Unsupported as error:
        return finding(UNKNOWN, "%s: %s" % (at, error))
    except socket.timeout:
        return finding(UNHEALTHY, "%s did not answer within %.1f s" % (at, check["timeout"]))
    except socket.gaierror as error:
        return finding(UNKNOWN, "cannot resolve %s: %s" % (check["address"], error.strerror))
    except ConnectionRefusedError:
        return finding(UNHEALTHY, "%s is closed" % at)
    except ssl.SSLError as error:
        return finding(UNHEALTHY, "%s: no TLS: %s" % (at, error.reason or error))
    except OSError as error:
        return finding(connection_state(error), "%s: %s" % (at, error.strerror or error))
    except ValueError as error:
        return finding(UNKNOWN, "cannot read the certificate of %s: %s" % (at, error))
    return _judge(check, certificate, system.now())


def _judge(check: CheckData, certificate: Certificate, now: float) -> Finding:
    seconds = certificate.not_after - now
    words = "the certificate of %s is valid for %s more, until %s" % (
        place(check),
        days(seconds),
        date(certificate.not_after),
    )
    if seconds < check["valid_for"]:
        message = "%s; %s wanted: renew it" % (words, days(check["valid_for"]))
        return finding(UNHEALTHY, message, observed=_observed(certificate))
    return finding(HEALTHY, words, observed=_observed(certificate))


def _refused(check: CheckData, system: System, error: Any, left: Callable[[], float]) -> Finding:
    """Why a careful client does not get in, from the certificate itself."""
    who = "the certificate of %s" % place(check)
    try:
        certificate = read_certificate(_fetch(check, "require", left))
    except (OSError, ValueError):
        return finding(UNHEALTHY, "%s is refused: %s" % (who, error.verify_message))
    words = _reason(check, certificate, error, system.now())
    return finding(UNHEALTHY, "%s %s" % (who, words), observed=_observed(certificate))


def _reason(check: CheckData, certificate: Certificate, error: Any, now: float) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        if certificate.not_after > now:
            return "is good until %s, but one above it in the chain has expired" % date(
                certificate.not_after
            )
        ago = days(now - certificate.not_after)
        return "expired %s ago, on %s: renew it" % (ago, date(certificate.not_after))
    if code == _NOT_YET:
        return "is not valid before %s; the clock of this host says %s" % (
            date(certificate.not_before),
            date(now),
        )
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        return "is for %s and not for %s" % (_listed(certificate.names), check["server_name"])
    if code in _NO_ISSUER:
        return (
            "is issued by %s, whom this host does not trust: does the server send the "
            "intermediate certificates, or does ca_file name the authority?"
            % (certificate.issuer or "nobody")
        )
    return "is refused: %s" % error.verify_message


def _fetch(check: CheckData, mode: str, left: Callable[[], float]) -> bytes:
    """The server's own certificate in DER, from one handshake."""
    import ssl

    context = wire.tls_context(mode, check.get("ca_file"))
    raw = socket.create_connection((check["address"], check["number"]), timeout=left())
    try:
        raw.settimeout(left())
        with context.wrap_socket(raw, server_hostname=check["server_name"]) as connection:
            data = connection.getpeercert(binary_form=True)
    finally:
        raw.close()
    if not data:
        raise ssl.SSLError("the server shows no certificate")
    return bytes(data)


def _observed(certificate: Certificate) -> Dict[str, Any]:
    return {
        "not_after": certificate.not_after,
        "issuer": certificate.issuer,
        "names": certificate.names,
    }


def _listed(names: List[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES]) or "no name"
    more = len(names) - _SHOWN_NAMES
    return "%s and %d more" % (shown, more) if more > 0 else shown


def days(seconds: float) -> str:
    """A length of time, as coarse as people think of it."""
    if seconds >= 2 * _DAY:
        return "%d days" % (seconds // _DAY)
    return "%d hours" % (seconds // 3600) if seconds >= 7200 else "%d minutes" % (seconds // 60)


def date(instant: float) -> str:
    """A UTC instant, to the minute."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(instant))
    except (OverflowError, ValueError, OSError):
        return "a day that no calendar has"
