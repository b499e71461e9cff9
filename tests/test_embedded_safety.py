"""Safe to expose: headers on every answer, slow guessing, no secret in the log, nothing runs."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import argilla as rg
import httpx
import pytest
from conftest import RunningArgilla, run_argilla
from factories import make_project
from hypothesis import given
from hypothesis import strategies as st

from annotate.embedded import headers
from annotate.embedded.log_format import HIDDEN, SecretFreeFormatter
from annotate.embedded.login_limits import LoginLimits
from annotate.embedded.process import stop
from annotate.embedded.throttle import FORGIVEN_AFTER, REMEMBERED, Known, Throttle

KEY = "X-Argilla-Api-Key"


class Clock:
    """Seconds, which the test lets pass."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/sign-in", 200),
        ("/_nuxt/0280bb9.js", 200),
        ("/api/v1/version", 200),
        ("/api/v1/me", 401),
        ("/api/v1/no-such-thing", 404),
    ],
)
def test_every_answer_carries_the_headers(
    argilla_server: RunningArgilla, path: str, status: int
) -> None:
    answer = httpx.get(argilla_server.url + path, follow_redirects=True)
    assert answer.status_code == status
    expected = headers.security_headers(argilla_server.home / "page")
    assert {name: answer.headers[name] for name in expected} == expected
    assert "strict-transport-security" not in answer.headers
    assert "server" not in answer.headers
    if path.startswith("/api"):
        assert answer.headers["cache-control"] == "no-store"


def test_https_is_asked_for_only_where_it_is_spoken(argilla_server: RunningArgilla) -> None:
    """Behind a proxy on this machine that says so."""
    answer = httpx.get(f"{argilla_server.url}/", headers={"X-Forwarded-Proto": "https"})
    assert answer.headers["strict-transport-security"] == headers.STRICT_TRANSPORT[1]


def test_the_policy_is_the_same_from_the_package_and_from_the_running_server(
    argilla_server: RunningArgilla,
) -> None:
    import argilla_server as package

    shipped = Path(package.__file__).parent / "static"
    served = argilla_server.home / "page"
    assert headers.security_headers(shipped) == headers.security_headers(served)


def test_custom_fields_run_only_where_they_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<script>start()</script>")
    strict = headers.content_security_policy(tmp_path)
    lax = headers.content_security_policy(tmp_path, custom_fields=True)
    assert "'sha256-" in strict
    assert "unsafe-eval" not in strict
    assert "script-src 'self' 'unsafe-inline' 'unsafe-eval';" in lax


def test_a_wait_doubles_up_to_its_bound_and_is_forgiven_in_time() -> None:
    clock = Clock()
    throttle = Throttle(free=2, longest=10, now=clock)
    waits = []
    for _ in range(8):
        throttle.failed("name")
        waits.append(throttle.wait("name"))
    assert waits == [0, 1, 2, 4, 8, 10, 10, 10]
    clock.seconds += 10
    assert throttle.wait("name") == 0
    throttle.failed("name")
    assert throttle.wait("name") == 10
    clock.seconds += FORGIVEN_AFTER + 1
    throttle.failed("name")
    assert throttle.wait("name") == 0


@given(st.lists(st.integers(0, 3 * REMEMBERED), max_size=50), st.integers(0, REMEMBERED))
def test_what_is_remembered_is_bounded(keys: list[int], many: int) -> None:
    throttle, known = Throttle(free=1, longest=1), Known()
    for key in [*range(REMEMBERED - 10), *keys, *range(many, many + 30)]:
        throttle.failed(key)
        known.add(key)
    assert len(throttle._failures) <= REMEMBERED
    assert len(known._keys) <= REMEMBERED
    assert many + 29 in known


def test_others_cannot_lock_out_who_has_logged_in_before() -> None:
    limits = LoginLimits()
    limits.try_("ada", "home")
    limits.succeeded("ada", "home")
    for attempt in range(200):
        limits.try_("ada", f"botnet-{attempt}")
    assert limits.wait("ada", "home") == 0
    assert 0 < limits.wait("ada", "elsewhere") <= 30


def test_one_password_on_many_names_is_slowed_down_by_address() -> None:
    limits = LoginLimits()
    for attempt in range(100):
        limits.try_(f"name-{attempt}", "there")
        limits.try_("own", "there")
        limits.succeeded("own", "there")
    assert 0 < limits.wait("ada", "there") <= 60
    assert limits.wait("ada", "home") == 0


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningArgilla]:
    """One whose address may be made to wait."""
    server = run_argilla(tmp_path_factory.mktemp("safety") / "argilla")
    yield server
    stop(server.home)


def log_in(server: RunningArgilla, name: str, password: str, address: str) -> httpx.Response:
    """From an address, as a proxy on this machine passes it on."""
    return httpx.post(
        f"{server.url}/api/v1/token",
        data={"username": name, "password": password},
        headers={"X-Forwarded-For": address},
    )


def test_guessing_a_password_is_made_to_wait_and_the_owner_is_not(
    own_server: RunningArgilla,
) -> None:
    assert log_in(own_server, "owner", own_server.password, "192.0.2.1").status_code == 201
    statuses = [log_in(own_server, "owner", "wrong", "192.0.2.66").status_code for _ in range(8)]
    assert statuses[:5] == [401] * 5
    assert 429 in statuses
    waiting = log_in(own_server, "owner", own_server.password, "192.0.2.66")
    assert waiting.status_code == 429
    seconds = int(waiting.headers["retry-after"])
    assert 1 <= seconds <= 60
    assert waiting.headers["x-frame-options"] == "DENY"
    assert log_in(own_server, "owner", own_server.password, "192.0.2.1").status_code == 201
    time.sleep(seconds)
    assert log_in(own_server, "owner", own_server.password, "192.0.2.66").status_code == 201


@pytest.mark.parametrize("password", ["wrong", "", "x" * 100, "nul\0inside", "ünï"])
def test_a_name_that_exists_is_answered_like_one_that_does_not(
    own_server: RunningArgilla, password: str
) -> None:
    own = log_in(own_server, "owner", password, f"198.51.100.{len(password)}")
    nobody = log_in(own_server, "nobody", password, f"203.0.113.{len(password)}")
    assert (own.status_code, own.text) == (nobody.status_code, nobody.text)
    assert own.status_code in (401, 422)


def test_a_form_of_another_kind_and_size_is_counted_and_bounded(
    own_server: RunningArgilla,
) -> None:
    url, place = f"{own_server.url}/api/v1/token", {"X-Forwarded-For": "192.0.2.77"}
    statuses = [
        httpx.post(
            url,
            files={"username": (None, "owner"), "password": (None, "wrong")},
            headers=place,
        ).status_code
        for _ in range(8)
    ]
    assert 429 in statuses
    huge = httpx.post(url, content=b"username=" + b"x" * 100_000, headers=place)
    assert huge.status_code == 413


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_what_is_no_form_is_told_and_counted_and_leaves_no_traceback(
    own_server: RunningArgilla, kind: str
) -> None:
    url, where = f"{own_server.url}/api/v1/token", {"X-Forwarded-For": f"192.0.2.{len(kind)}"}
    log = own_server.home / "server.log"
    before = log.stat().st_size
    answers = [
        httpx.post(url, content=b"garbage", headers={"Content-Type": kind, **where})
        for _ in range(8)
    ]
    assert {answer.status_code for answer in answers} == {400, 429}
    assert answers[0].json() == {"detail": "this is no login form"}
    assert "Traceback" not in log.read_text()[before:]


def test_wrong_keys_wait_and_right_ones_that_are_known_do_not(own_server: RunningArgilla) -> None:
    me, place = f"{own_server.url}/api/v1/me", {"X-Forwarded-For": "192.0.2.88"}
    right = {KEY: own_server.api_key, **place}
    assert httpx.get(me, headers=right).status_code == 200
    with httpx.Client() as client:
        statuses = [
            client.get(me, headers={KEY: uuid.uuid4().hex, **place}).status_code for _ in range(110)
        ]
    assert statuses[:100] == [401] * 100
    assert statuses[-1] == 429
    assert httpx.get(me, headers=right).status_code == 200


SECRET = "correct-horse-battery-9f2c"


def test_no_secret_reaches_the_log(own_server: RunningArgilla) -> None:
    api, place = f"{own_server.url}/api/v1", {"X-Forwarded-For": "192.0.2.99"}
    owner = {KEY: own_server.api_key, **place}
    token = log_in(own_server, "owner", own_server.password, "192.0.2.1").json()["access_token"]
    user = {"first_name": "A", "username": "spy", "password": SECRET}
    tries = [
        httpx.post(f"{api}/users", json={**user, "first_name": 7, "role": SECRET}, headers=owner),
        httpx.post(f"{api}/users", json=[SECRET, user], headers=owner),
        httpx.post(f"{api}/users", json={**user, "password": SECRET[:4]}, headers=owner),
        httpx.post(f"{api}/token", data={"password": SECRET}, headers=place),
        httpx.post(f"{api}/token", json={"username": "owner", "password": SECRET}, headers=place),
        httpx.get(f"{api}/me?api_key={SECRET}&limit=x", headers={KEY: SECRET, **place}),
        httpx.get(f"{api}/datasets/{SECRET}/records", headers=owner),
        httpx.get(f"{api}/me", headers={"Authorization": f"Bearer {SECRET}", **place}),
        httpx.get(f"{api}/datasets/{SECRET}", headers={"Authorization": f"Bearer {token}"}),
        httpx.post(f"{api}/webhooks", json={"url": SECRET, "events": [SECRET]}, headers=owner),
        httpx.post(f"{api}/users", json={**user, "username": "x" * 300, "id": 1}, headers=owner),
    ]
    assert all(answer.status_code >= 400 for answer in tries)
    made = httpx.post(f"{api}/users", json=user, headers=owner).raise_for_status().json()
    assert httpx.post(f"{api}/users", json={**user, "id": made["id"]}, headers=owner).is_error
    log = (own_server.home / "server.log").read_text()
    assert "RequestValidationError" in log  # it was told of errors
    secrets = [SECRET, SECRET[:4] + "'", token, made["api_key"]]
    secrets += [own_server.api_key, own_server.password]
    assert [secret for secret in secrets if secret in log] == []


@pytest.mark.parametrize(
    "text",
    [
        "X-Argilla-Api-Key: {}",
        "'x-argilla-api-key': '{}'",
        "(b'authorization', b'Bearer {}')",
        "password={}&x=1",
        '"password": "{}"',
        "api_key='{}', name='x'",
        "[parameters: ('ada', '{}', '$2b$12')]",
        "input_value='{}', input_type=str",
        "'input': {{'password': '{}', 'a': 1}}, 'ctx': 3",
        "token='{}')",
    ],
)
def test_the_usual_places_of_a_secret_are_hidden(text: str) -> None:
    record = logging.LogRecord("a", 30, "f", 1, text.format(SECRET), None, None)
    said = SecretFreeFormatter().format(record)
    assert SECRET not in said
    assert HIDDEN in said


def test_nothing_we_make_renders_markdown_or_templates(own_server: RunningArgilla) -> None:
    from annotate.guidelines import load_guideline
    from annotate.settings import argilla_settings

    client = rg.Argilla(api_url=own_server.url, api_key=own_server.api_key)
    folder = Path(__file__).parent.parent / "guidelines"
    for task in sorted(path.parent.name for path in folder.glob("*/v1.md")):
        guideline = load_guideline(folder, f"{task}@v1")
        for multi_turn in (False, True):
            settings = argilla_settings(
                guideline, guideline.min_outputs, multi_turn=multi_turn, client=client
            )
            assert {type(field) for field in settings.fields} <= {rg.TextField, rg.ChatField}
            assert not any(field.use_markdown for field in settings.fields)
            texts = [one for one in settings.questions if isinstance(one, rg.TextQuestion)]
            assert not any(question.use_markdown for question in texts)


def test_custom_fields_are_allowed_by_name_and_with_a_warning(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    up = ["up", "--port", "0", "--no-dashboard", "--lease", "0", "--allow-custom-fields"]
    handloom = [sys.executable, "-m", "align"]
    try:
        done = subprocess.run(
            [*handloom, *up], cwd=project.root, capture_output=True, text=True, check=True
        )
        assert "answer in their name" in done.stderr
        url = re.search(r"http://\S+", done.stdout)
        assert url
        policy = httpx.get(url[0]).headers["content-security-policy"]
        assert "script-src 'self' 'unsafe-inline' 'unsafe-eval';" in policy
    finally:
        subprocess.run([*handloom, "down"], cwd=project.root, check=True, capture_output=True)
