"""Checks of databases, numbers, certificates and logs in a plan: what is taken, what is refused."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deployguard.errors import UsageError
from deployguard.onhost.protocols.wire import TLS_MODES
from deployguard.plan import load
from deployguard.plan.credentials import access_of, demand_access, secrets_of_checks
from deployguard.plan.dsn import Dsn, parse_dsn
from tests.plan.conftest import Mistakes

PLAN = """\
name: shop
version: v1
hosts: {web1: }
components:
  app:
    artifact: dist/app.tar.gz
    path: /srv/app
    service: {systemd: app.service}
    checks:
      - CHECK
"""
DOCUMENT = (Path(__file__).parents[2] / "docs" / "plan.md").read_text()
SECRET = "geheim%40p%2Fss"
ENVIRONMENT = {
    "PASSWORD": "geheim",
    "URL": f"postgresql://shop:{SECRET}@db.example.com/shop",
    "BROKEN": "postgresql://shop:geheim@ss/w?rt@db/shop",
    "EMPTY": "",
    "WORDS": "not a dsn, but geheim",
}


def said(mistakes: Mistakes, check: str) -> list[str]:
    """What is said about a plan with this check, without the name of its place."""
    found = mistakes(PLAN.replace("CHECK", check), environ=ENVIRONMENT)
    assert all(line.startswith("10:") for line in found)
    assert "geheim" not in "".join(found)
    return [line.partition(" components.app.checks[0].")[2] for line in found]


@pytest.mark.parametrize(
    "check",
    [
        "postgres: postgresql://shop@db/shop",
        "postgres: {dsn: 'postgres://db', password_file: /etc/x, free_connections: 20%}",
        "postgres: {dsn_env: URL, query: SELECT 1, expect: '1', free_connections: 5}",
        "mysql: mysql://shop@db/shop?ssl-mode=VERIFY_IDENTITY&ssl-ca=/etc/ca.pem",
        "redis: rediss://cache/3",
        "redis: {dsn: redis://cache, password_env: PASSWORD, command: [EXISTS, x], expect: '1'}",
        "prometheus: {url: 'http://p:9090', query: up, min: 1}",
        "prometheus: {url: 'http://p', query: up, max_increase: 20%, token_env: PASSWORD}",
        "prometheus: {url: 'http://p', query: x, max_decrease: 3, user: u, password_env: PASSWORD}",
        "tls: shop.example.com",
        "tls: {address: '::1', port: 8443, server_name: x, valid_for: 14d, ca_file: /etc/ca.pem}",
        "logs: {}",
        "logs: {file: /var/log/x, words: [OOPS], ignore: ['a*b'], max_new: 2, history: 1 MiB}",
    ],
)
def test_good_checks(check: str, mistakes: Mistakes) -> None:
    """What the documentation shows, and the short forms."""
    assert said(mistakes, check) == []


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("postgres: 5432", "expected a DSN, or a block with `dsn`, found the number 5432"),
        ("postgres: db.example.com", "the DSN does not start with postgresql://; write it as"),
        ("postgres: mysql://db/shop", "the DSN does not start with postgresql://"),
        ("postgres: 'postgresql://shop:geheim@db/shop'",
         "a password has no place in a plan; name the environment variable that holds it in "
         "password_env, or the one that holds the whole DSN in dsn_env"),
        ("postgres: 'postgresql://db/shop?password=geheim'", "a password has no place in a plan"),
        ("postgres: 'postgresql://{{ env.PASSWORD }}:{{ env.PASSWORD }}@db/x'",
         "a password has no place in a plan"),
        ("redis: 'redis://:geheim@cache'", "a password has no place in a plan"),
        ("postgres: postgresql://db:port/shop", "behind the host of the DSN is no port; write a"),
        ("redis: 'redis://[::1/0'", "the DSN cannot be read; in names and passwords"),
        ("postgres: postgresql://db:0/shop", "the DSN has a port that is none"),
        ("postgres: postgresql://a,b/shop", "names several hosts; make it a check for each"),
        ("postgres: 'postgresql://db/shop?sslmoed=require'",
         'the check does not know the DSN parameter "sslmoed"; did you mean "sslmode"?'),
        ("postgres: 'postgresql://db/shop?sslmode=yes'",
         "the DSN has no sslmode that is one; use disable, allow, prefer"),
        ("postgres: 'postgresql://db/shop?sslrootcert=ca.pem'", "its path starts with /"),
        ("postgres: 'postgresql://db/a/b'", "does not name a database behind its host"),
        ("mysql: 'mysql://db/x?socket=run.sock'", "a socket is an absolute path"),
        ("redis: redis://cache/name", "a database of Redis is a number"),
        ("redis: unix:run.sock", "a socket is an absolute path"),
        ("postgres: {}", "needs exactly one of dsn and dsn_env"),
        ("postgres: {dsn: 'postgres://db', dsn_env: URL}", "needs exactly one of dsn and dsn_env"),
        ("postgres: {dsn: 'postgres://db', password_env: A, password_file: /b}",
         "has two passwords; use password_env or password_file"),
        ("postgres: {dsn: 'postgres://db', password_env: NOT_SET}",
         "the environment variable NOT_SET is not set; export NOT_SET where deployguard runs"),
        ("postgres: {dsn_env: EMPTY}", "the environment variable EMPTY is not set"),
        ("postgres: {dsn_env: BROKEN}", "BROKEN: the parameters behind the ? cannot be read"),
        ("postgres: {dsn_env: WORDS}", "WORDS: the DSN does not start with postgresql://"),
        ("postgres: {dsn_env: $URL}", "is not the name of an environment variable"),
        ("postgres: {dsn_env: URL, free_connections: some}",
         '"some" is not a number or a percentage; write it as 5 or 20%'),
        ("postgres: {dsn_env: URL, free_connections: -1}", "is not a number or a percentage"),
        ("postgres: {dsn_env: URL, expect: '1'}", "expects the answer of no query; add query:"),
        ("postgres: {dsn_env: URL, query: SELECT 1, expect: 1}", 'quote it: "1"'),
        ("redis: {dsn: 'redis://x', expect: '1'}", "expects the answer of no command"),
        ("redis: {dsn: 'redis://x', command: GET x}", "write it as [GET, x]"),
        ("redis: {dsn: 'redis://x', query: x}", "unknown key"),
        ("prometheus: {url: 'http://p', query: up}",
         "asks for nothing; add max, min, max_increase or max_decrease"),
        ("prometheus: {url: 'http://p', query: up, max: 1, min: 2}", "max is less than min"),
        ("prometheus: {url: p, query: up, max: 1}", "is not a URL"),
        ("prometheus: {url: 'http://', query: up, max: 1}", "is not a URL"),
        ("prometheus: {url: 'http://p', query: up, max: true}", "true is not a number"),
        ("prometheus: {url: 'http://p', query: up, max: 1, user: u}", "with half of something"),
        ("prometheus: {url: 'http://p', query: up, max: 1, token_env: NOT_SET}", "is not set"),
        ("prometheus: {url: 'http://p', query: up, max: 1, deadline: 5s, min_healthy_time: 1m}",
         "it could never be healthy for that long"),
        ("tls: https://shop.example.com/",
         "is not a name or an address; write it without https:// and without a path"),
        ("tls: {address: x, port: 0}", "must be at least 1"),
        ("logs: ", "logs has no value; write logs: {}"),
        ("logs: {max_new: -1}", "must be at least 0"),
        ("logs: {history: much}", "is not a size"),
    ],
)  # fmt: skip
def test_wrong_checks(check: str, words: str, mistakes: Mistakes) -> None:
    """One clear mistake each, at its place, without a secret in it."""
    found = said(mistakes, check)
    assert len(found) == 1 and words in found[0], found


@pytest.mark.parametrize(
    "service", ["", "    service: {command: {start: [a], stop: [a], status: [a]}}\n"]
)
def test_a_log_that_nobody_knows(service: str, mistakes: Mistakes) -> None:
    """Only systemd and our own services have one that is known."""
    text = PLAN.replace("CHECK", "logs: {}")
    text = text.replace("    service: {systemd: app.service}\n", service)
    (found,) = mistakes(text)
    assert "nobody knows where the log of this component is; add file:" in found


def test_defaults_that_do_not_fit_are_fitted(mistakes: Mistakes) -> None:
    """Who shortens the deadline of a check with a soak of its own need not shorten that too."""
    check = "prometheus: {url: 'http://p', query: up, max: 1, deadline: 5s}"
    assert said(mistakes, check) == []


def load_with(folder: Path, check: dict[str, Any], **options: Any) -> Any:
    """The plan with this check."""
    data = yaml.safe_load(PLAN.replace("- CHECK", "[]"))
    data["components"]["app"]["checks"] = [check, {"port": 80}]
    (folder / "plan.yaml").write_text(yaml.safe_dump(data))
    return load(folder / "plan.yaml", **options)


def test_no_secret_is_in_a_plan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows, pickles and compares as any other; the secrets are where they were named."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    plan = load_with(folder, {"postgres": {"dsn_env": "URL"}})
    assert "geheim" not in repr(plan) and b"geheim" not in pickle.dumps(plan)
    assert "geheim" not in plan.model_dump_json()
    assert pickle.loads(pickle.dumps(plan)) == plan
    found = {secret.reveal() for secret in secrets_of_checks(plan)}
    assert found == {"geheim@p/ss", ENVIRONMENT["URL"]}
    access = access_of("postgres", plan.components["app"].checks[0].spec)
    assert access.password is not None and access.password.reveal() == "geheim@p/ss"
    assert access.credential == "the password in URL" and "geheim" not in repr(access)


def test_a_plan_without_its_secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads where nothing is deployed, as for `recover`; what deploys asks for them."""
    monkeypatch.delenv("PASSWORD", raising=False)
    check = {"redis": {"dsn": "redis://cache", "password_env": "PASSWORD"}}
    plan = load_with(folder, check, local_files=False)
    with pytest.raises(UsageError, match="PASSWORD is not set"):
        demand_access(plan)
    assert secrets_of_checks(plan) == []
    monkeypatch.setenv("PASSWORD", "geheim")
    demand_access(plan)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("postgres", "postgresql://db",
         Dsn("db", 5432, "", "postgres", "postgres", "prefer", "")),
        ("postgres", "postgres://shop@[::1]:6432/x%2Dy?sslmode=require",
         Dsn("::1", 6432, "", "shop", "x-y", "require", "")),
        ("postgres", "postgresql+asyncpg://u@/d?host=/run/postgresql&port=6432",
         Dsn("127.0.0.1", 6432, "/run/postgresql/.s.PGSQL.6432", "u", "d", "prefer", "")),
        ("postgres", "postgresql://u@db/d?sslmode=require&sslrootcert=/ca.pem&application_name=x",
         Dsn("db", 5432, "", "u", "d", "verify-ca", "/ca.pem")),
        ("postgres", "postgresql://u@db/d?sslmode=verify-full&sslrootcert=system",
         Dsn("db", 5432, "", "u", "d", "verify-full", "")),
        ("mysql", "mariadb://u@db/d?charset=utf8mb4",
         Dsn("db", 3306, "", "u", "d", "prefer", "")),
        ("mysql", "mysql+pymysql://localhost?socket=/run/mysqld/mysqld.sock&ssl-mode=disabled",
         Dsn("localhost", 3306, "/run/mysqld/mysqld.sock", "root", "", "disable", "")),
        ("redis", "redis://cache:6380/2", Dsn("cache", 6380, "", "", "2", "disable", "")),
        ("redis", "rediss://u@cache?ssl_cert_reqs=none&db=4",
         Dsn("cache", 6379, "", "u", "4", "require", "")),
        ("redis", "unix:///run/redis.sock?db=1",
         Dsn("127.0.0.1", 6379, "/run/redis.sock", "", "1", "disable", "")),
    ],
)  # fmt: skip
def test_dsns(kind: str, text: str, expected: Dsn) -> None:
    """As the usual clients read them."""
    assert parse_dsn(kind, text) == expected


def test_a_password_is_decoded_and_never_shown() -> None:
    """In the URL or as a parameter."""
    for text in (f"postgresql://u:{SECRET}@db/d", f"postgresql://u@db/d?password={SECRET}"):
        dsn = parse_dsn("postgres", text)
        assert dsn.password == "geheim@p/ss" and "geheim" not in repr(dsn)


@given(
    kind=st.sampled_from(["postgres", "mysql", "redis"]),
    text=st.one_of(
        st.text(max_size=80),
        st.text(alphabet="postgrequlmydi:/@?&=%#[],.0aü ", max_size=60),
        st.builds(
            lambda scheme, rest: f"{scheme}://{rest}",
            st.sampled_from(["postgresql", "mysql", "redis", "rediss", "unix"]),
            st.text(alphabet="ab:/@?&=%#[],.019-_ ", max_size=40),
        ),
    ),
)
def test_any_text_is_a_dsn_or_a_mistake(kind: str, text: str) -> None:
    """A mistake has a mend, and repeats nothing that could be a password."""
    try:
        dsn = parse_dsn(kind, text)
    except ValueError as error:
        problem, _, mend = str(error).partition("; ")
        assert problem and mend
        return
    assert dsn.tls in TLS_MODES and 0 < dsn.port < 65536
    assert dsn.address or dsn.socket


@given(secret=st.text(alphabet="geheim@:/?#&=%[] ,", min_size=6, max_size=20))
def test_a_password_that_was_not_escaped_is_in_no_mistake(secret: str) -> None:
    """It may be read as any part of the DSN, and is told as none."""
    marked = f"Q{secret}Q"
    for kind, text in (
        ("postgres", f"postgresql://shop:{marked}@db/shop"),
        ("redis", f"redis://:{marked}@db"),
    ):
        said = ""
        try:
            parse_dsn(kind, text)
        except ValueError as error:
            said = str(error)
        assert "Q" not in said


EXAMPLES = [
    check
    for block in re.findall(r"```yaml\n(checks:\n.*?)```", DOCUMENT, re.DOTALL)
    for check in yaml.safe_load(block)["checks"]
]


@pytest.mark.docs
@pytest.mark.parametrize("check", EXAMPLES, ids=lambda check: next(iter(check)))
def test_the_checks_that_are_documented(check: dict[str, Any], folder: Path) -> None:
    """Each of them loads, with the variables that it names."""
    names = {"SHOP_DB_PASSWORD": "x", "SHOP_REDIS_URL": "redis://:x@cache.example.com/0"}
    plan = load_with(folder, check, environ=names)
    assert plan.components["app"].checks[0].kind in check
    assert {"postgres", "mysql", "redis", "prometheus", "tls", "logs"} <= {
        kind for each in EXAMPLES for kind in each
    }
