"""No known secret survives in any form, nor what looks like one; and little else is touched."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deployguard.evidence import redact as redact_module
from deployguard.evidence import rules
from deployguard.evidence.redact import Redactor
from deployguard.evidence.rules import MAX_WIDTH, RULES
from deployguard.secret import Secret

TOKEN = re.compile(r"\[redacted:[a-z0-9-]+:[0-9a-f]{6}\]")


def masked(text: str, *secrets: str) -> str:
    """Redacted, with every token as ``*``."""
    return TOKEN.sub("*", Redactor(secrets).text(text))


# -- known secrets ---------------------------------------------------------------------------

PASSWORD = "p@ss/w0rd'x&<\"é"


@pytest.mark.parametrize(
    "shape",
    [
        PASSWORD,
        quote(PASSWORD, safe=""),
        quote(PASSWORD, safe="").lower(),
        quote_plus(PASSWORD),
        json.dumps(PASSWORD)[1:-1],
        json.dumps(PASSWORD, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps({"a": PASSWORD}))[1:-1],
        PASSWORD.encode().hex(),
        PASSWORD.encode().hex().upper(),
        repr(PASSWORD)[1:-1],
        "p@ss/w0rd&#x27;x&amp;&lt;&quot;é",
        PASSWORD.replace("'", "'\\''"),
    ],
)
def test_a_known_secret_is_found_in_every_shape(shape: str) -> None:
    """Raw, in a URL, in JSON, in JSON within JSON, in hex, in Python, HTML and shell."""
    out = Redactor([PASSWORD]).text(f"before {shape} after")
    assert "w0rd" not in out and "7730" not in out
    assert "before " in out and " after" in out


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
@pytest.mark.parametrize("behind", ["", "!", "!!"])
def test_a_known_secret_is_found_in_base64_of_any_alignment(before: str, behind: str) -> None:
    """As part of a longer text, such as the user and password of a Basic header."""
    secret = "correct-horse?battery>staple"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(f"{before}{secret}{behind}".encode()).decode()
        out = Redactor([secret]).text(encoded)
        left = TOKEN.sub("", out).rstrip("=")
        assert len(left) <= -(-(len(before) + len(behind)) * 8 // 6) + 4
        assert TOKEN.search(out)


@given(st.binary(min_size=4, max_size=40), st.binary(max_size=20), st.binary(max_size=20))
def test_no_form_of_a_secret_is_left(secret: bytes, before: bytes, behind: bytes) -> None:
    """Whatever bytes it is made of, and whatever stands around it."""
    redactor = Redactor([secret])
    for text in (before + secret + behind, secret.hex().encode(), quote(secret).encode()):
        out = redactor.content(text)
        assert secret not in re.sub(rb"\[redacted:[a-z0-9-]+:[0-9a-f]{6}\]", b"", out)


def test_overlapping_secrets_leave_no_rest() -> None:
    """The end of one is the start of the other."""
    assert masked("x abcd1234efgh y", "abcd1234", "1234efgh") == "x * y"


def test_the_lines_of_a_key_are_secrets_too() -> None:
    """A log shows them one by one."""
    key = "-----BEGIN X-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END X-----\n"
    assert masked("a MIIEvQIBADANBgkq b\nc hkiG9w0BAQEFAASC", key) == "a * b\nc *"


def test_short_values_are_not_looked_for() -> None:
    """Redacting every "a" would leave nothing to read; the report says so."""
    redactor = Redactor(["a", "", "abc"])
    assert redactor.text("a abc") == "a abc"
    assert redactor.report() == {"replaced": {}, "too_short": 2}


def test_equal_secrets_get_equal_tokens_in_every_form() -> None:
    """They correlate; under another key they do not."""
    secret = "hunter2hunter2"
    redactor = Redactor([secret], key=b"k")
    raw, encoded, other = (
        TOKEN.findall(redactor.text(text))
        for text in (secret, quote(secret) + " " + secret.encode().hex(), "password=other-one")
    )
    assert raw == [encoded[0]] == [encoded[1]] != other
    assert Redactor([secret], key=b"l").text(secret) != raw[0]


def test_a_secret_names_its_token_after_its_origin() -> None:
    """The name of the environment variable is no secret and says which one leaked."""
    out = Redactor([Secret("s3cr3t-value", origin="DB_PASSWORD")]).text("x s3cr3t-value")
    assert out.startswith("x [redacted:db-password:")


# -- what looks like a secret ----------------------------------------------------------------

# Put together here: scanners of repositories take whole ones for leaks.
SAMPLES = {
    "private-key": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----",
    "aws-key-id": "AK" + "IAIOSFODNN7EXAMPLE",
    "github": "gh" + "p_" + "a1B2" * 9,
    "gitlab": "gl" + "pat-" + "x1Y2z3" * 4,
    "slack": "xo" + "xb-123456789012-abcdefABCDEF",
    "webhook": "https://hooks.sla" + "ck.com/services/T000/B000/XXXXyyyy",
    "stripe": "sk_" + "live_" + "4eC39HqLyjWDarjtT1",
    "jwt": "ey" + "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "google": "AI" + "za" + "SyA1234567890abcdefghijklmnopqrstuv",
    "npm": "np" + "m_" + "a1B2" * 9,
    "pypi": "py" + "pi-" + "AgEIcHlwaS5vcmc" * 3,
    "sendgrid": "S" + "G." + "a1B2" * 5 + "." + "c3D4" * 10,
    "openai": "s" + "k-proj-" + "a1B2" * 6,
    "vault": "hv" + "s." + "CAESI" * 6,
    "digitalocean": "do" + "p_v1_" + "0a1b" * 16,
    "telegram": "123456789:A" + "A" + "a1B2c3D4" * 4,
    "authorization": "Authorization: Bearer abc.def-ghi",
    "bearer": "got bearer abcdefghijkl",
    "cookie": "Set-Cookie: sid=31d4d96e407aad42; Path=/",
    "url-password": "postgres://shop:pa:ss@db.example/shop",
    "url-token": "https://" + "a1b2" * 5 + "@git.example/x.git",
    "query": "GET /file?sig=Zm9vYmFy&size=3",
    "registry-auth": '{"auths": {"r": {"auth": "dXNlcjpwYXNz"}}}',
    "netrc": "machine m login me password open-sesame",
    "identified-by": "CREATE USER u IDENTIFIED BY 'open sesame'",
    "flag": "run --api-token abcdef --name x",
    "password": "DB_PASSWORD=open-sesame",
    "key": '{"client_secret": "abc def"}',
}


@pytest.mark.parametrize("name", SAMPLES)
def test_each_rule_finds_its_kind(name: str) -> None:
    """And names it."""
    redactor = Redactor()
    out = redactor.text(f"x {SAMPLES[name]} y")
    assert redactor.report()["replaced"] == {name: 1}
    assert out.startswith("x ")
    # A header's value is the rest of its line.
    assert out.endswith(" y") or name in ("authorization", "cookie")


def test_every_rule_has_a_sample() -> None:
    """A rule that nothing tests is a rule that finds nothing."""
    assert {rule.name for rule in RULES} == set(SAMPLES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter2, retry=3", "password=*, retry=3"),
        ("password=hunter2,retry=3", "password=*,retry=3"),
        ("password=a,b;c&d", "password=*"),
        ("Server=x;Password=abc;Timeout=30", "Server=x;Password=*;Timeout=30"),
        ("a=1&password=b&c=d", "a=1&password=*&c=d"),
        ('{"password":"x\\"y","user":"u"}', '{"password":"*","user":"u"}'),
        ('"{\\"apiKey\\":\\"abc\\",\\"z\\":1}"', '"{\\"apiKey\\":\\"*\\",\\"z\\":1}"'),
        ("password: 'it''s'", "password: '*'"),
        ("spring.datasource.password=x1y2", "spring.datasource.password=*"),
        ("auth.token.value = abc", "auth.token.value = *"),
        ("{'api_key' => 'abc'}", "{'api_key' => '*'}"),
        ("export DB_PASS=abc", "export DB_PASS=*"),
        (
            "curl -H 'Authorization: Basic Zm9v' http://x",
            "curl -H 'Authorization: Basic *' http://x",
        ),
        ("redis://:pw@cache:6379/0", "redis://:*@cache:6379/0"),
        ("MYSQL_PWD=abc", "MYSQL_PWD=*"),
    ],
)
def test_the_name_stays_and_the_value_goes(text: str, expected: str) -> None:
    """What a reader needs to find the cause is the name."""
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "password authentication failed for user shop",
        "password=null secret=none token=",
        "password=****** token: <token>",
        "token_count=12 max_tokens: 512",
        "DB_PASSWORD=${DB_PASSWORD}",
        "PWD=/srv/backend",
        "redis.password_env: the environment variable CACHE_PASSWORD is not set",
        "POSTGRES_PASSWORD_FILE=/run/secrets/db token_env: GITHUB_TOKEN",
        "passed: 12, bypass: 3",
        "Error: token expired at 10:00",
        "password-reset.service: Failed with result 'exit-code'.",
        "ssh://git@host/repo and https://host/a@b",
        "GET /users?key=1&page=2",
        "author: somebody; authority=x",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Evidence that is redacted away helps nobody."""
    assert Redactor().text(text) == text


def test_redacting_twice_changes_nothing() -> None:
    """Sinks follow one another; the second finds only tokens."""
    redactor = Redactor(["hunter2hunter2"])
    text = "\n".join([*SAMPLES.values(), "hunter2hunter2"])
    once = redactor.text(text)
    assert redactor.text(once) == once


def test_a_key_that_is_cut_off_is_redacted_to_its_end() -> None:
    """The log ended in the middle of it."""
    begin = "-----BEGIN OPENSSH PRIV" + "ATE KEY-----"
    assert masked(f"a\n{begin}\nb3BlbnNz\naC1rZXk\n") == "a\n*"


# -- data and files --------------------------------------------------------------------------


def test_json_data_is_redacted_by_value_and_by_name() -> None:
    """Nested, in keys, and where only the name tells that it is a secret."""
    data = {
        "db_password": "plain words",
        "url": "postgres://u:pw@h/db",
        "nested": [{"apiKey": "k"}, "hunter2hunter2", 5, None],
        "hunter2hunter2": True,
        "password": None,
        "secrets": ["one", "two"],
        "token": "",
    }
    out = Redactor(["hunter2hunter2"]).data(data)
    text = TOKEN.sub("*", json.dumps(out))
    assert json.loads(text) == {
        "db_password": "*",
        "url": "postgres://u:*@h/db",
        "nested": [{"apiKey": "*"}, "*", 5, None],
        "*": True,
        "password": None,
        "secrets": ["*", "*"],
        "token": "",
    }


def test_a_binary_file_is_searched_for_known_secrets_only() -> None:
    """What looks like an assignment in a database file is data."""
    redactor = Redactor(["hunter2hunter2"])
    data = b"\0\1password=abc\0hunter2hunter2\0"
    out = redactor.content(data)
    assert out.startswith(b"\0\1password=abc\0[redacted:secret:")
    assert b"hunter2" not in out
    late = b"x" * 9000 + b"\0password=abc"
    assert b"password=[redacted" in redactor.content(late)


def test_text_with_lone_surrogates_survives() -> None:
    """Names of files that are not UTF-8."""
    assert masked("name\udcff password=abc1") == "name\udcff password=*"


# -- streams ---------------------------------------------------------------------------------


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows so small that every example has many borders."""
    monkeypatch.setattr(redact_module, "_WINDOW", 64)


def streamed(redactor: Redactor, data: bytes, sizes: list[int]) -> bytes:
    """``data`` in pieces of these sizes, over and over."""
    stream, out, at, turn = redactor.stream(), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        out.append(stream.feed(data[at : at + size]))
        at += size
        turn += 1
    return b"".join([*out, stream.finish()])


FILLER = st.text(alphabet="ab =:\n\"'-/.&,x", max_size=120)
PARTS = st.lists(
    st.one_of(FILLER, st.sampled_from([*SAMPLES.values(), "hunter2hunter2", "aaaaaaaa"])),
    max_size=30,
)


@pytest.mark.usefixtures("small_windows")
@given(parts=PARTS, sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5))
@example(parts=["aaaaaaaa"] * 30, sizes=[7])
@example(parts=["xAK" + "IAIOSFODNN7EXAMPLE"] * 90, sizes=[1])
@example(parts=["password=", "hunter2hunter2", "\n"] * 30, sizes=[1])
def test_the_pieces_in_which_bytes_arrive_change_nothing(
    parts: list[str], sizes: list[int]
) -> None:
    """A secret across any border is found, and the output is that of the whole."""
    with pytest.MonkeyPatch.context() as patch:
        # The overlap is what a match can be at most; here all are shorter than this.
        patch.setattr("deployguard.evidence.scan.MAX_WIDTH", 400)
        redactor = Redactor(["hunter2hunter2", "aaaaa"], key=b"k")
    data = "".join(parts).encode()
    whole = redactor.content(data)
    assert streamed(redactor, data, sizes) == whole
    assert b"hunter2" not in whole


def test_a_stream_of_megabytes_hides_secrets_at_every_border() -> None:
    """With the real windows, at the real size."""
    redactor = Redactor(["hunter2hunter2"], key=b"k")
    data = b"".join(b"%07d hunter2hunter2 password=open-sesame\n" % n for n in range(40_000))
    out = streamed(redactor, data, [65536])
    assert b"hunter2" not in out and b"sesame" not in out
    assert out.count(b"[redacted:") == 80_000
    assert out == redactor.content(data)


def test_nothing_but_secrets_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one letter that is part of a secret becomes a token, and more is hidden than
    need be."""
    monkeypatch.setattr(redact_module, "_MAX_CHAIN", 500_000)
    redactor = Redactor(["aaaaaaaa"])
    out = streamed(redactor, b"a" * 1_500_000, [65536])
    assert len(out) < 200 and b"aaaaaaaa" not in out


def test_rules_fit_into_the_overlap_of_two_windows() -> None:
    """The quantifiers are bounded, or a border could tear a match in two."""
    parser = getattr(re, "_parser", None) or __import__("sre_parse")
    for rule in rules.RULES:
        assert parser.parse(rule.expression.pattern).getwidth()[1] <= MAX_WIDTH, rule.name
        # Lookahead counts as no width; the longest one looks at 80 bytes.
        assert all(word == word.lower() for word in rule.keywords)
