"""Text that is not YAML, or not one plan: one mistake, at its place, in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deployguard.errors import PlanInvalid
from deployguard.plan import load
from deployguard.plan.document import TooLarge
from deployguard.plan.scalars import read_plain
from deployguard.plan.syntax import MAX_BYTES, parse
from tests.plan.conftest import Mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "1:1 the file is empty"),
        (b"# only a comment\n", "1:1 the file is empty"),
        (b"---\n", "1:1 the file is empty"),
        (b"~\n", "1:1 the file is empty"),
        (b"shop\n", "1:1 a plan is a mapping; start with name: and version:"),
        (b"- a\n", "1:1 a plan is a mapping; start with name: and version:"),
        (b"name: a\n---\nname: b\n", "2:1 a second document starts here; a plan is one document"),
        (b"name: a\n\tversion: b\n", "2:1 a tab cannot indent; use spaces"),
        (b"name: a: b\n", "1:8 a second `: ` on one line, or a wrong indent; quote the text"),
        (b"name: 'a\nversion: b\n", "the file ends inside a quoted text (it began at line 1)"),
        (b"serial: [1, 2\nname: x\n", "a list opened with [ is not closed"),
        (b"hosts: {a: b\n", "a mapping opened with { is not closed"),
        (b"a: &x [*x]\n", "1:8 *x refers to an anchor that is not defined above"),
        (b"a: *nobody\n", "1:4 *nobody refers to an anchor that is not defined above"),
        (
            b"version: {{ version }}\n",
            "1:11 { starts a mapping, and a mapping cannot be a key; quote",
        ),
        (b"? [a]\n: b\n", "1:3 a key must be text"),
        (b"name: caf\xe9\n", "1:10 the byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("name: ü\nx: ".encode() + b"\xff", "2:4 the byte 0xff is not UTF-8"),
        (b"name: a\x07b\n", "1:8 the character U+0007 is not allowed in YAML; remove it"),
        (b"[" * 100_000, "1:66 nested more than 64 deep"),
        (b"- " * 100_000, "nested more than 64 deep"),
        (b"name: %x\n", "1:7 a value cannot start with %, @ or `; quote it"),
        (b'name: "\\ud800"\n', "an escape for half of a character"),
        (b'name: "\\q"\n', "an unknown \\ escape in double quotes"),
        (b"name: a\nhosts:\n  - a\n b: c\n", "this line does not fit in with the l"),
    ],
)
def test_not_a_plan(text: bytes, said: str, mistakes: Mistakes) -> None:
    """One mistake each, at the line and column where the reader stumbled."""
    found = mistakes(text)
    assert len(found) == 1
    assert said in found[0]


def test_aliases_that_multiply(mistakes: Mistakes) -> None:
    """A few lines that unfold to ten thousand million values are refused, at once."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 10):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    assert mistakes("\n".join(lines)) == [
        "1:1 aliases multiply to more values than a plan can have; use fewer *"
    ]


def test_aliases_that_deepen() -> None:
    """A chain of aliases cannot nest deeper than Python can walk."""
    text = "a0: &a0 [x]\n" + "".join(
        f"a{level}: &a{level} {'[' * 40}*a{level - 1}{']' * 40}\n" for level in range(1, 60)
    )
    with pytest.raises(TooLarge):
        parse(text.encode(), "plan.yaml").plain()


def test_a_file_that_is_too_large(folder: Path) -> None:
    """Something that is not a plan, such as an artifact, is not read to its end."""
    (folder / "plan.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(PlanInvalid, match="larger than 8 MiB"):
        load(folder / "plan.yaml")


@pytest.mark.parametrize("name", ["nobody.yaml", ".", "a\0b", "x" * 300])
def test_a_file_that_cannot_be_read(name: str, folder: Path) -> None:
    """A missing file, a folder and an impossible name are mistakes, not tracebacks."""
    with pytest.raises(PlanInvalid, match=r":1:1 cannot be read: "):
        load(f"{folder}/{name}")


def test_places_are_those_of_pyyaml() -> None:
    """Lines and columns count from 1 and agree with PyYAML's composer, also after ü and emoji."""
    text = 'a:\n  - "ü😀": {b: c}\n    d: |\n      text\ne: [f, {g: h}]\n'
    document = parse(text.encode(), "x")
    for path in (("a",), ("a", 0, "ü😀"), ("a", 0, "ü😀", "b"), ("a", 0, "d"), ("e", 1, "g")):
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        for part in path:
            if isinstance(node, yaml.MappingNode):
                key, node = next(pair for pair in node.value if pair[0].value == part)
                mark = key.start_mark
            else:
                assert isinstance(node, yaml.SequenceNode)
                node = node.value[part]
        place, _ = document.locate(path, on_key=True)
        assert (place.line, place.column) == (mark.line + 1, mark.column + 1)


def test_the_pure_python_reader_agrees(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML comes without libyaml, values and places are the same."""
    text = "a: [1, x, {b: ~}]\nc: &d {e: 1.5}\nf: {<<: *d, g: '1'}\n"
    fast = parse(text.encode(), "x")
    monkeypatch.delattr(yaml, "CSafeLoader")
    slow = parse(text.encode(), "x")
    assert slow.plain() == fast.plain() == {
        "a": [1, "x", {"b": None}], "c": {"e": 1.5}, "f": {"e": 1.5, "g": "1"},
    }  # fmt: skip
    assert dict(slow.places()) == dict(fast.places())


def test_merge_keys() -> None:
    """`<<` fills in what is not there; the mapping's own keys win, in either order."""
    text = "a: &a {x: 1, y: 2}\nb: {y: 3, <<: *a}\nc: {<<: [*a, {z: 4, x: 9}], y: 5}\n"
    data = parse(text.encode(), "x").plain()
    assert data["b"] == {"y": 3, "x": 1}
    assert data["c"] == {"y": 5, "x": 1, "z": 4}


def test_merge_of_something_else(mistakes: Mistakes) -> None:
    """`<<` with a text is a mistake."""
    assert any("<< merges mappings only" in line for line in mistakes("a: {<<: b}\n"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("", None), ("~", None), ("null", None), ("true", True), ("False", False), ("0", 0),
     ("-12", -12), ("+3", 3), ("0x1F", 31), ("1.5", 1.5), (".5", 0.5), ("1.", 1.0),
     ("1.5e+3", 1500.0), ("50%", "50%"), ("v1.2.4", "v1.2.4"), ("192.0.2.1", "192.0.2.1"),
     ("1.2.3", "1.2.3"), ("2 GiB", "2 GiB"), ("3000:80", "3000:80"), ("./x", "./x"), ("-", "-"),
     ("nobody", "nobody"), ("yesterday", "yesterday"), ("30s", "30s"), ("10-20", "10-20")],
)  # fmt: skip
def test_plain_words(text: str, value: object) -> None:
    """Words that every reader of YAML understands alike have that meaning."""
    assert read_plain(text) == (value, "", "")


@pytest.mark.parametrize(
    "text",
    ["yes", "No", "ON", "off", "y", "N", "010", "-07", "08", "0o7", "0b1", "1_000", "1_0.5",
     "12:30", "1:02:03.5", "1e5", "1E-5", "7e10", ".inf", "-.INF", ".nan", "2024-01-02",
     "2024-1-2 10:00:00", "1" * 5000, "9" * 400 + ".0"],
)  # fmt: skip
def test_words_that_readers_take_differently(text: str) -> None:
    """Words that mean one thing to one reader and another to the next are surprises."""
    scalar = read_plain(text)
    assert scalar.surprise
    assert len(scalar.surprise) < 200


@pytest.mark.parametrize("text", ['"\\0"', '"a\\0b"'])
def test_characters_no_program_takes(text: str, mistakes: Mistakes) -> None:
    """Escapes for what no argument or file name can hold are found where they stand."""
    assert any(line.startswith("1:7 name: holds ") for line in mistakes(f"name: {text}\n"))
