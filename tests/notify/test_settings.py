"""What a plan says, as it is kept without the plan: defaults, files beside it, and secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployguard.delivery import Undelivered
from deployguard.notify.settings import Settings, known, remember, settings_of
from deployguard.plan.load import load
from deployguard.store.journal import SqliteJournal

PLAN = """\
name: shop
version: v1
hosts: {web1: }
components:
  app: {artifact: dist, path: /srv/app, checks: [{port: 80}]}
rescue: {redact: [DATABASE_PASSWORD]}
notify:
  product: Acme Shop
  templates: {customers: words/customers.j2}
  channels:
    ops: {slack: {token_file: keys/slack, channel: C1}, at_least: medium, audience: management}
    oncall: {pagerduty: {key_env: KEY}, escalations: 1, deploys: true, deadline: 5s, expires: 1h}
    status: {statuspage: {page: p1, token_env: TOKEN}}
    hook: {webhook: {url_env: URL, secret_env: SECRET}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plan with what it names."""
    for name in ("dist", "keys", "words"):
        (tmp_path / name).mkdir()
    (tmp_path / "dist" / "file").write_text("")
    (tmp_path / "keys" / "slack").write_text("xoxb-from-a-file\n")
    (tmp_path / "words" / "customers.j2").write_text("{{ product }}: {{ kind }}")
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path


def test_what_is_left_out(folder: Path) -> None:
    """Who is woken, and customers, hear of what is high; the others of everything."""
    settings = settings_of(load(folder / "plan.yaml", environ={}))
    rows = {
        one.name: (one.kind, one.at_least, one.audience, one.escalations, one.deploys)
        for one in settings.channels
    }
    assert rows == {
        "ops": ("slack", 3, "management", 0, False),
        "oncall": ("pagerduty", 2, "team", 1, True),
        "status": ("statuspage", 2, "customers", 0, False),
        "hook": ("webhook", 4, "team", 0, False),
    }
    ops, oncall, *_ = settings.channels
    assert (oncall.deadline, oncall.expires, ops.deadline, ops.expires) == (5, 3600, 20, 86400)
    assert settings.templates == {"customers": "{{ product }}: {{ kind }}"}
    assert (settings.product, settings.redact) == ("Acme Shop", ("DATABASE_PASSWORD",))


def test_it_is_kept_without_the_plan(
    folder: Path, journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As plain data that holds no secret; a file is found from any folder."""
    secrets = {"KEY": "key-of-the-pager", "TOKEN": "token-of-the-page", "SECRET": "whsec_x"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("URL", "https://ann:password-of-ann@hook.example.com/secret-path-of-it")
    plan = load(folder / "plan.yaml")
    remember(journal, plan)
    (row,) = journal.read("SELECT settings, saved_at FROM @notify_plans")
    for value in (*secrets.values(), "xoxb-from-a-file", "password-of-ann", "secret-path"):
        assert value not in row["settings"]
    monkeypatch.chdir("/")
    kept = known(journal, "shop", "production")
    assert kept is not None
    assert kept == Settings.from_dict(json.loads(row["settings"])) == settings_of(plan)
    assert {secret.reveal() for secret in kept.secrets()} == {
        *secrets.values(),
        "xoxb-from-a-file",
        "https://ann:password-of-ann@hook.example.com/secret-path-of-it",
        "password-of-ann",
        "secret-path-of-it",
    }
    remember(journal, plan)
    assert journal.read("SELECT settings, saved_at FROM @notify_plans") == [row]
    assert known(journal, "shop", "staging") is None


def test_channels_that_are_taken_out_of_the_plan(folder: Path, journal: SqliteJournal) -> None:
    """From the next deploy on they are told nothing."""
    remember(journal, load(folder / "plan.yaml", environ={}))
    text = PLAN.partition("notify:")[0]
    (folder / "plan.yaml").write_text(text)
    remember(journal, load(folder / "plan.yaml", environ={}))
    kept = known(journal, "shop", "production")
    assert kept is not None and kept.channels == ()


def test_a_plan_without_channels_is_not_kept(folder: Path, journal: SqliteJournal) -> None:
    """Most plans have none."""
    (folder / "plan.yaml").write_text(PLAN.partition("notify:")[0])
    remember(journal, load(folder / "plan.yaml", environ={}))
    assert known(journal, "shop", "production") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("  \n", "is empty"), (b"\xff\xfe\x00", "no text")],
)
def test_a_file_that_holds_no_secret(folder: Path, content: str | bytes | None, said: str) -> None:
    """It waits for one who has it; the name of the file is said, and nothing of what is in it."""
    (ops, *_) = settings_of(load(folder / "plan.yaml", environ={})).channels
    file = folder / "keys" / "slack"
    assert ops.demand("token").reveal() == "xoxb-from-a-file"
    file.unlink()
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(Undelivered, match=said) as caught:
        ops.demand("token")
    assert str(file) in str(caught.value)
    with pytest.raises(Undelivered, match="name no webhook"):
        ops.demand("webhook")
