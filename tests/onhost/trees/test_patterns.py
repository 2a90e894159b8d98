"""Globs over the paths of a tree."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.trees.patterns import Patterns


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        (".env", [".env", ".env/x"], ["env", "a/.env", ".env2", ".envx/y"]),
        ("uploads/", ["uploads", "uploads/a/b"], ["a/uploads", "uploads2"]),
        ("./a/*.log", ["a/x.log", "a/.log", "a/x.log/y"], ["a/b/x.log", "x.log", "a/x.logs"]),
        ("**/__pycache__", ["__pycache__", "a/b/__pycache__/c.pyc"], ["a__pycache__", "a/b"]),
        ("**/*.pyc", ["a.pyc", "a/b.pyc", "a/b.pyc/c"], ["a.py", "a.pycx"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a/c"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/z"], ["a", "ab", "a/x/bc"]),
        ("a?c", ["abc", "a\nc", "a\udcffc"], ["ac", "a/c", "abbc"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "x"]),
        ("[!a-c]x", ["dx", "-x"], ["ax", "/x"]),
        ("[]x]y", ["]y", "xy"], ["y"]),
        ("[a", ["[a"], ["a"]),
        ("a.b+c(d)|e", ["a.b+c(d)|e"], ["axb+c(d)|e", "e"]),
        ("*", ["a", "a/b"], []),
        ("a\n", ["a\n"], ["a"]),
    ],
)
def test_what_a_glob_matches(glob: str, matching: list[str], others: list[str]) -> None:
    """Anchored at the top, a star stays in its component, a directory covers what is below."""
    patterns = Patterns([glob])
    assert [path for path in matching if not patterns.match(path)] == []
    assert [path for path in others if patterns.match(path)] == []


def test_several_globs_are_one_question() -> None:
    """Any of them will do, and none at all matches nothing."""
    patterns = Patterns(["a", "b/*"])
    assert [p for p in ("a", "b", "b/c", "c") if patterns.match(p)] == ["a", "b/c"]
    assert not Patterns()
    assert not Patterns().match("a")
    assert Patterns(["a"])
    assert patterns.globs == ("a", "b/*")


@pytest.mark.parametrize("glob", ["", "/", "/etc", "..", "a/../b", ".", "a\0b", "[z-a]"])
def test_what_is_no_glob_for_a_tree(glob: str) -> None:
    """Patterns that could only be a mistake are refused where they are made."""
    with pytest.raises(ValueError):
        Patterns([glob])


@given(
    st.text("ab*?.-+^$()|\\", min_size=1, max_size=6),
    st.text("ab.-+^$()|\\\n", min_size=1, max_size=6),
)
def test_one_component_means_what_fnmatch_means(glob: str, name: str) -> None:
    """Within one component, the standard library is the reference."""
    if glob in (".", "..") or glob == "**":
        return
    assert Patterns([glob]).match(name) == fnmatch.fnmatchcase(name, glob)
