"""What of an object is the deploy's, and how it is brought back."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any, Dict, List
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployguard.onhost.kubernetes import kubectl
from deployguard.onhost.kubernetes import objects as kubeobjects

words = st.text("abcxyz", min_size=1, max_size=3)
leaves = st.one_of(st.integers(0, 3), words, st.booleans())
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)
marks = st.dictionaries(
    st.sampled_from(["team", kubeobjects.LAST_APPLIED, kubeobjects.REVISION]), words, max_size=3
)


@st.composite
def objects(draw: Any) -> Dict[str, Any]:
    """An object as a server gives it."""
    meta: Dict[str, Any] = {"name": "app", "namespace": "chat", "uid": draw(words)}
    meta["resourceVersion"] = draw(words)
    for name, choice in (
        ("annotations", marks),
        ("labels", st.dictionaries(words, words, max_size=2)),
    ):
        found = draw(choice)
        if found:
            meta[name] = found
    made = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta}
    made["spec"] = draw(st.dictionaries(words, values, max_size=3))
    made["status"] = {"replicas": draw(st.integers(0, 3))}
    if draw(st.booleans()):
        made["data"] = draw(st.dictionaries(words, words, max_size=2))
    return made


def patched(obj: Dict[str, Any], patch: List[Dict[str, Any]]) -> Dict[str, Any]:
    """RFC 6902, for members of mappings."""
    new = copy.deepcopy(obj)
    for step in patch:
        at = new
        *above, last = step["path"].split("/")[1:]
        for name in above:
            at = at[name]
        if step["op"] == "remove":
            del at[last]
        else:
            at[last] = step["value"]
    return new


@given(objects(), objects())
def test_the_way_back_leads_back(old: Dict[str, Any], live: Dict[str, Any]) -> None:
    """Whatever it became, the patch makes it what it was, and touches nothing of the server's."""
    now = patched(live, kubeobjects.way_back(old, live))
    assert kubeobjects.differences(old, now) == []
    revision = live["metadata"].get("annotations", {}).get(kubeobjects.REVISION)
    assert now["metadata"].get("annotations", {}).get(kubeobjects.REVISION) == revision
    assert now["status"] == live["status"]
    assert kubeobjects.way_back(old, now) == []


@given(objects(), objects())
def test_equal_objects_have_no_differences(old: Dict[str, Any], new: Dict[str, Any]) -> None:
    """And those that have some name the fields, never a value."""
    assert kubeobjects.differences(old, copy.deepcopy(old)) == []
    found = kubeobjects.differences(old, new)
    assert bool(found) == (kubeobjects.essence(old) != kubeobjects.essence(new))


def test_replicas_of_an_autoscaler_are_left_to_it() -> None:
    """They are no difference, and the way back has those that it has set meanwhile."""
    old: Dict[str, Any] = {"kind": "Deployment", "metadata": {"name": "app"}}
    live = copy.deepcopy(old)
    old["spec"] = {"replicas": 2, "paused": False}
    live["spec"] = {"replicas": 7, "paused": True}
    assert kubeobjects.differences(old, live, elastic=True) == ["spec.paused"]
    (step,) = kubeobjects.way_back(old, live, elastic=True)
    assert step["value"] == {"replicas": 7, "paused": False}


def test_references_of_a_pod() -> None:
    """Every way in which a pod reads a ConfigMap or a Secret."""
    pod = {
        "imagePullSecrets": [{"name": "pull"}],
        "initContainers": [{"envFrom": [{"configMapRef": {"name": "first"}}]}],
        "containers": [
            {
                "envFrom": [{"secretRef": {"name": "all"}}],
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "a"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "two", "key": "b"}}},
                    {"name": "C", "value": "plain"},
                ],
            }
        ],
        "volumes": [
            {"configMap": {"name": "mounted"}},
            {"secret": {"secretName": "tls"}},
            {
                "projected": {
                    "sources": [{"secret": {"name": "token"}}, {"configMap": {"name": "ca"}}]
                }
            },
            {"emptyDir": {}},
        ],
    }
    found = kubeobjects.references({"kind": "Deployment", "spec": {"template": {"spec": pod}}})
    assert found == {
        *(("ConfigMap", name) for name in ("first", "one", "mounted", "ca")),
        *(("Secret", name) for name in ("pull", "all", "two", "tls", "token")),
    }


@given(st.text(min_size=4, max_size=30).filter(str.strip))
def test_secrets_are_shown_by_name(value: str) -> None:
    """As they are, in base64, in a URL, and in the record of the last apply."""
    encoded = base64.b64encode(value.encode("utf-8")).decode("ascii")
    obj = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "database",
            "annotations": {kubeobjects.LAST_APPLIED: json.dumps({"data": {"password": encoded}})},
        },
        "data": {"password": encoded},
    }
    assert encoded not in json.dumps(kubeobjects.masked(obj))
    hidden = kubeobjects.secret_values([obj])
    assert hidden[value] == hidden[encoded] == "[secret database/password]"
    assert hidden[quote(value, safe="")] == hidden[value]


APPLY = """\
Warning: something old
Error from server (BadRequest): error when applying patch:
{"data":{"password":"aHVudGVyMg=="}}
to:
Resource: "/v1, Resource=secrets", GroupVersionKind: "/v1, Kind=Secret"
Name: "database", Namespace: "chat"
for: "STDIN": error when patching "STDIN": unknown field "dta"
"""
DECODE = """\
Error from server (BadRequest): Secret in version "v1" cannot be handled as a Secret: illegal \
base64 data at input byte 4, error found in #10 byte of ...|aHVudGVyMg!|..., bigger context ...|x|
"""


@pytest.mark.parametrize("said", [APPLY, DECODE])
def test_what_kubectl_repeats_is_left_out(said: str) -> None:
    """The reason stays."""
    reason = kubectl.reason(said)
    assert "aHVudGVyMg" not in reason and "Warning" not in reason
    assert reason.startswith("Error from server (BadRequest): ")
    assert "unknown field" in reason or "input byte 4" in reason


def test_however_kubectl_prints_objects() -> None:
    """None, one, a list, several."""
    one, two = {"kind": "Pod", "a": 1}, {"kind": "Pod", "a": 2}
    both = {"kind": "PodList", "items": [one, two]}
    assert kubectl.read_objects("") == []
    assert kubectl.read_objects(json.dumps(one)) == [one]
    assert kubectl.read_objects(json.dumps(both)) == [one, two]
    assert kubectl.read_objects(json.dumps(one) + "\n" + json.dumps(two) + "\n") == [one, two]
    with pytest.raises(kubectl.KubectlFailed):
        kubectl.read_objects("no JSON")
