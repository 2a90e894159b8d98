"""What looks like a secret without being known as one: the rules, and what they leave alone.

Every rule has keywords. Only where one of them occurs does its expression run, which makes the
whole fast enough for a log of many megabytes. Every quantifier is bounded: a stream is redacted
in windows, and a match must fit into the overlap of two (``MAX_WIDTH``, asserted by a test).

The part to replace is the first group that took part, else the whole match; what stands around
it (the keyword, the scheme, the host) stays, for it says what went wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["MAX_WIDTH", "RULES", "Rule", "is_harmless", "is_sensitive_name"]

MAX_WIDTH = 24 * 1024


def is_harmless(value: bytes) -> bool:
    """Values that stand where a secret would and are none: absent, masked, or a reference."""
    return _HARMLESS.fullmatch(value) is not None


_HARMLESS = re.compile(
    rb"(?i)null|none|nil|undefined|true|false|yes|no|on|off|empty|set|unset|missing|required"
    rb"|\d{1,4}|[*x.-]{1,64}|<[a-z _-]{1,40}>|\$\{[a-z_][a-z0-9_]{0,64}\}|\[redacted:.*"
    rb"|\[?redacted\]?|\[?filtered\]?|\[?masked\]?",
)


def _never(_: bytes) -> bool:
    return False


def _user_name(value: bytes) -> bool:
    """In ``ssh://git@host`` there is only a user; a token is longer than that."""
    return is_harmless(value) or len(value) < 16


def _folder(value: bytes) -> bool:
    return is_harmless(value) or value.startswith(b"/")


@dataclass(frozen=True)
class Rule:
    """One kind of secret. ``lowered`` expressions run over the text in lower case."""

    name: str
    keywords: tuple[bytes, ...]
    expression: re.Pattern[bytes]
    lowered: bool = False
    skip: Callable[[bytes], bool] = field(default=is_harmless)


_NAMES = (
    rb"(?:passw(?:or)?d|passphrase|secret|token|credential"
    rb"|(?:api|access|account|auth|encryption|integration|license|master|private|routing|secret"
    rb"|shared|signing|storage|webhook)[_.-]?key)"
)
_SHORT_NAMES = rb"(?<![a-z])(?:pass|psk|pin|otp)(?![a-z])"
# `password_env: NAME` and `password_file=/path` say where a secret is, and not what it is.
_WHERE = rb"(?<![_-]env)(?<![_-]file)"
_QUOTE = rb"(?:\\{0,3}[\"'])?"
_NAMED = rb"(?:" + _NAMES + rb"[a-z0-9_-]{0,40}|" + _SHORT_NAMES + rb"[0-9_-]{0,8}|pwd)"
_EQUALS = _QUOTE + rb"[ \t]{0,4}(?:=>|:=|==?|:)[ \t]{0,4}"
# A separator within the value belongs to it unless the next field or the next word follows.
_WORD = rb"(?:[^\s\"'`\\,;&]|\\[^\s\"'nrt]|[,;&](?!\s|[a-z0-9_.%-]{1,64}\\{0,3}[\"']?[=:]|[\"']))"
_VALUE = (
    rb"(?:\\{1,3}\"([^\"\\\r\n]{1,4096})|\"((?:[^\"\\\r\n]|\\[^\r\n]){1,2048})"
    rb"|'((?:[^'\\\r\n]|\\[^\r\n]|''){1,2048})|(" + _WORD + rb"{1,2048}))"
)
_REST = rb"([^\"'\\\r\n]{4,4096})"
_SCHEME = rb"(?:(?:bearer|basic|token|digest|negotiate|api-?key|hmac|aws4-hmac-sha256)[ \t]{1,4})?"


def _rule(
    name: str,
    keywords: str,
    expression: bytes,
    *,
    lowered: bool = False,
    skip: Callable[[bytes], bool] = _never,
) -> Rule:
    words = tuple(word.encode() for word in keywords.split())
    return Rule(name, words, re.compile(expression), lowered, skip)


def _token(name: str, keyword: str, expression: bytes) -> Rule:
    """A token that is recognised by its own prefix."""
    return _rule(name, keyword, rb"(?<![A-Za-z0-9_-])" + expression)


RULES: tuple[Rule, ...] = (
    _rule(
        "private-key",
        "private",
        rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        rb"(?:[\s\S]{0,16384}?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        rb"|[A-Za-z0-9+/=\s\\]{0,16384})",
    ),
    _token("aws-key-id", "akia asia agpa aida aroa anpa anva", (
        rb"(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ANVA)[A-Z0-9]{16}(?![A-Z0-9])"
    )),
    _token("github", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", (
        rb"(?:gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{22,255})"
    )),
    _token("gitlab", "glpat- gldt- glrt- glptt-", rb"gl(?:pat|dt|rt|ptt)-[A-Za-z0-9_.-]{16,255}"),
    _token("slack", "xoxa- xoxb- xoxe xoxp- xoxr- xoxs- xoxo- xapp-", (
        rb"(?:xox[abeoprs]|xoxe\.xox[bp]|xapp)-[A-Za-z0-9-]{8,512}"
    )),
    _rule("webhook", "hooks.slack.com discord webhook.office.com", (
        rb"(?:hooks\.slack\.com/(?:services|workflows|triggers)/"
        rb"|discord(?:app)?\.com/api/webhooks/|webhook\.office\.com/webhookb2/)"
        rb"([A-Za-z0-9_@/.-]{8,512})"
    )),
    _token("stripe", "sk_ rk_ pk_ whsec_", (
        rb"(?:(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,255}|whsec_[A-Za-z0-9+/=]{16,255})"
    )),
    _token("jwt", "eyj", (
        rb"eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{4,8192}(?:\.[A-Za-z0-9_-]{0,4096})?"
    )),
    _token("google", "aiza gocspx- ya29.", (
        rb"(?:AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{20,64}|ya29\.[A-Za-z0-9_-]{20,2048})"
    )),
    _token("npm", "npm_", rb"npm_[A-Za-z0-9]{30,64}"),
    _token("pypi", "pypi-", rb"pypi-[A-Za-z0-9_-]{32,512}"),
    _token("sendgrid", "sg.", rb"SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,128}"),
    _token("openai", "sk-", rb"sk-[A-Za-z0-9_-]{20,255}"),
    _token("vault", "hvs. hvb. hvr.", rb"hv[sbr]\.[A-Za-z0-9_-]{20,512}"),
    _token("digitalocean", "dop_v1_ doo_v1_ dor_v1_", rb"do[opr]_v1_[a-f0-9]{40,128}"),
    _token("telegram", ":aa", rb"\d{8,12}:AA[A-Za-z0-9_-]{30,64}"),
    _rule("authorization", "authorization", (
        rb"authorization" + _EQUALS + _QUOTE + _SCHEME + _REST
    ), lowered=True, skip=is_harmless),
    _rule("bearer", "bearer", rb"bearer[ \t]{1,4}([a-z0-9._~+/=-]{12,4096})", lowered=True),
    _rule("cookie", "cookie", rb"(?<![a-z])(?:set-)?cookie" + _EQUALS + _QUOTE + _REST,
          lowered=True, skip=is_harmless),
    _rule("url-password", "://", (
        rb"://[^\s/?#\"'<>:@]{0,256}:([^\s\"'<>/]{1,1024})@"
    ), skip=is_harmless),
    _rule("url-token", "://", rb"://([^\s/?#\"'<>:@]{1,1024})@", skip=_user_name),
    _rule("query", "sig= signature= code= key= auth= credential= session= sid= jwt=", (
        rb"[?&;](?:x-(?:amz|goog)-)?(?:sig|signature|code|key|auth|credential|session|sid|jwt)="
        rb"([^&\s\"'<>#]{4,4096})"
    ), lowered=True, skip=is_harmless),
    _rule("registry-auth", "auth", rb"\"_?auth\"[ \t]{0,4}:[ \t]{0,4}\"([^\"\r\n]{6,4096})\"",
          lowered=True),
    _rule("netrc", "login", rb"login[ \t]{1,4}\S{1,256}\s{1,16}password[ \t]{1,4}(\S{1,1024})",
          lowered=True),
    _rule("identified-by", "identified", (
        rb"identified[ \t]{1,4}(?:with[ \t]{1,4}\S{1,64}[ \t]{1,4})?(?:by|as)[ \t]{1,4}"
        rb"(?:password[ \t]{1,4})?'([^'\r\n]{1,1024})'"
    ), lowered=True),
    _rule("flag", "--", rb"--[a-z0-9-]{0,40}?" + _NAMED + rb"[ \t]{1,4}" + _VALUE,
          lowered=True, skip=is_harmless),
    _rule("password", "pass psk otp pin", (
        rb"(?:passw(?:or)?d[a-z0-9_-]{0,40}|passphrase[a-z0-9_-]{0,40}|" + _SHORT_NAMES
        + rb"[0-9_-]{0,8})" + _WHERE + _EQUALS + _VALUE
    ), lowered=True, skip=is_harmless),
    # The shell's PWD is a directory.
    _rule("password", "pwd", rb"pwd[0-9_-]{0,8}" + _EQUALS + _VALUE, lowered=True, skip=_folder),
    # A dotted name such as token.value needs an equals sign: "token.service: failed" is prose.
    _rule("key", "pass secret token credential key", (
        _NAMES + rb"[a-z0-9_-]{0,40}" + _WHERE + rb"(?:" + _EQUALS
        + rb"|\.[a-z0-9_.-]{1,40}[ \t]{0,4}=[ \t]{0,4})" + _VALUE
    ), lowered=True, skip=is_harmless),
)  # fmt: skip

_SENSITIVE_NAME = re.compile(_NAMED + rb"|authorization|cookie")


def is_sensitive_name(name: str) -> bool:
    """Whether a value under this name is a secret, as ``db_password`` and ``apiKey`` say."""
    return _SENSITIVE_NAME.search(name.lower().encode("utf-8", "surrogatepass")) is not None
