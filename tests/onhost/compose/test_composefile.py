"""What compose tools print of a file, in the two forms that they print it in."""

from __future__ import annotations

from deployguard.onhost.compose import file as composefile

# docker-compose 1.29 config (PyYAML).
OLD = """\
networks:
  services: {}
services:
  api:
    command:
    - sh
    - -c
    - |-
      echo services:
        depends_on: nothing
    depends_on:
      db:
        condition: service_healthy
      cache:
        condition: service_started
    environment:
      depends_on: text
    image: shop/api:v1
  cache:
    image: redis
    volumes_from:
    - db:ro
  db:
    build:
      context: /srv/shop
  proxy:
    image: 'nginx:1.25'
    links:
    - api:backend
    network_mode: service:api
version: '3.8'
volumes:
  data: {}
"""

# docker compose 2 config (Go).
NEW = """\
name: shop
services:
  api:
    build:
      context: /srv/shop
      dockerfile: Dockerfile
    depends_on:
      db:
        condition: service_healthy
        required: true
    networks:
      default: null
  "odd name":
    image: "reg.example.com:5000/x:1"
    links:
      - db
  db:
    image: postgres
networks:
  default:
    name: shop_default
"""


def test_what_docker_compose_1_prints() -> None:
    """Services with their images, and who needs whom by any of the ways there are."""
    found = composefile.services(OLD)
    assert list(found) == ["api", "cache", "db", "proxy"]
    assert found["api"].needs == ["db", "cache"] and found["api"].image == "shop/api:v1"
    assert found["cache"].needs == ["db"]
    assert found["api"].conditions == {"db": "service_healthy", "cache": "service_started"}
    assert found["db"] == composefile.Service("db", "", True, [], {}, [], False)
    assert found["proxy"].needs == ["api", "api"] and found["proxy"].image == "nginx:1.25"


def test_what_docker_compose_2_prints() -> None:
    """The same in Go's form, where lists are indented and names may be quoted."""
    found = composefile.services(NEW)
    assert found["api"].needs == ["db"] and found["api"].build
    assert found["odd name"].image == "reg.example.com:5000/x:1"
    assert found["odd name"].needs == ["db"]


def test_what_is_not_there_is_not_needed() -> None:
    """A service of a profile that is off is in no list."""
    found = composefile.services("services:\n  a:\n    depends_on:\n      - gone\n    image: x\n")
    assert found["a"].needs == []


def test_profiles() -> None:
    """A service that has some is part of the stack when one of them is asked for."""
    text = "services:\n  a:\n    image: x\n  b:\n    profiles:\n    - debug\n    - test\n"
    found = composefile.services(text)
    assert list(composefile.asked_for(found, [])) == ["a"]
    assert list(composefile.asked_for(found, ["", "test"])) == ["a", "b"]


def test_what_the_tool_does_at_a_start() -> None:
    """Compose 2 puts in what is no file of the host; what only looks like it counts for nothing."""
    text = (
        "services:\n  a:\n    configs:\n      - source: x\n        target: /x\n"
        "  b:\n    environment:\n      configs: x\n  c:\n    post_start:\n      - command: [x]\n"
        "configs:\n  x:\n    content: one\n"
    )
    assert [one.name for one in composefile.services(text).values() if one.tended] == ["a", "c"]


def test_levels() -> None:
    """Each after what it needs, those of one level in the order of their names."""
    needs = {"web": ["api"], "api": ["db", "cache"], "cache": [], "db": [], "cron": ["db"]}
    assert composefile.levels(needs) == [["cache", "db"], ["api", "cron"], ["web"]]
    # No tool takes a circle; all the same it must not go round for ever.
    assert composefile.levels({"a": ["b"], "b": ["a"], "c": []}) == [["c"], ["a", "b"]]
    assert composefile.levels({}) == []
