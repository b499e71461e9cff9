"""compose.yaml and what belongs to it: pinned, healthy, closed, and with the same headers."""

import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import argilla_server
import httpx
import pytest
import yaml
from services import find_program, private_folder, running
from stock import StockArgilla

from annotate.embedded.headers import STRICT_TRANSPORT, security_headers
from annotate.embedded.patches import PATCHED_VERSION

ROOT = Path(__file__).parent.parent
PROXY = ROOT / "deploy" / "nginx"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STORES = {"postgres", "elasticsearch", "redis"}
REQUIRED = re.compile(r"\$\{(\w+):\?")


def test_every_image_is_of_one_version() -> None:
    assert set(SERVICES) == STORES | {"argilla", "worker", "proxy"}
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-bookworm)?$", service["image"]), name
    assert SERVICES["argilla"]["image"] == f"argilla/argilla-server:v{PATCHED_VERSION}"
    assert SERVICES["worker"]["image"] == SERVICES["argilla"]["image"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_watched_bounded_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert "no-new-privileges:true" in service["security_opt"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    check = service["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    for condition in service.get("depends_on", {}).values():
        assert condition == {"condition": "service_healthy"}


def test_who_waits_for_whom() -> None:
    assert set(SERVICES["argilla"]["depends_on"]) == STORES
    assert set(SERVICES["worker"]["depends_on"]) == {"argilla"}
    assert set(SERVICES["proxy"]["depends_on"]) == {"argilla"}


def test_only_the_proxy_is_published_and_on_this_machine() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert SERVICES["proxy"]["ports"] == ["${HANDLOOM_BIND:-127.0.0.1}:${HANDLOOM_PORT:-6900}:8080"]
    for name in STORES:
        assert SERVICES[name]["networks"] == ["stores"]
    assert COMPOSE["networks"]["stores"]["internal"] is True
    assert "stores" not in SERVICES["proxy"]["networks"]


def test_what_must_last_is_on_a_volume() -> None:
    for name in ("argilla", "worker", *STORES):
        (volume,) = SERVICES[name]["volumes"]
        assert volume.split(":")[0] in COMPOSE["volumes"]


def test_there_is_no_default_password_and_no_default_account() -> None:
    text = (ROOT / "compose.yaml").read_text()
    for name in re.findall(r"\$\{(\w+)", text):
        assert name in {"HANDLOOM_BIND", "HANDLOOM_PORT"} or f"${{{name}:?" in text
    environment = SERVICES["argilla"]["environment"]
    assert environment["DEFAULT_USER_ENABLED"] == "false"
    assert not {"USERNAME", "PASSWORD", "API_KEY", "WORKSPACE"} & set(environment)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET", name):
                assert REQUIRED.match(value), name
            if "://" in value:
                assert REQUIRED.search(value), name


def test_the_secrets_are_random_and_ones_own(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    command = ["sh", "deploy/secrets.sh"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    file = tmp_path / ".env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = dict(line.split("=") for line in file.read_text().splitlines())
    assert set(found) == set(REQUIRED.findall((ROOT / "compose.yaml").read_text()))
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in found.values())
    assert len(set(found.values())) == len(found)
    again = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert file.read_text() == "".join(f"{name}={value}\n" for name, value in found.items())
    ignored = subprocess.run(["git", "check-ignore", "-q", ".env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def nginx_headers() -> str:
    """What deploy/nginx/headers.conf has to say: `security_headers`, in nginx's words."""
    pages = Path(argilla_server.__file__).parent / "static"
    headers = security_headers(pages)
    names = [*headers, STRICT_TRANSPORT[0], "cache-control"]
    lines = ["# As annotate/embedded/headers.py has them; tests/test_deploy.py compares."]
    lines += [f"proxy_hide_header {name};" for name in names if name != "cache-control"]
    lines += [f'add_header {name} "{value}" always;' for name, value in headers.items()]
    lines += [f"add_header {STRICT_TRANSPORT[0]} $strict_transport always;"]
    lines += ["add_header cache-control $api_cache always;"]
    return "\n".join(lines) + "\n"


def test_the_proxy_knows_the_headers_of_the_embedded_server() -> None:
    assert (PROXY / "headers.conf").read_text() == nginx_headers()
    assert f'"{STRICT_TRANSPORT[1]}"' in (PROXY / "nginx.conf").read_text()


@pytest.fixture
def proxied(stock_argilla: StockArgilla) -> Iterator[str]:
    """The proxy's own configuration, run by Debian's nginx before a stock Argilla; its address."""
    program = find_program("nginx", Path("/usr/sbin"))
    with private_folder("nginx") as (folder, identity):

        def command(port: int) -> list[str]:
            text = (PROXY / "nginx.conf").read_text()
            for old, new in (
                ("listen 8080", f"listen 127.0.0.1:{port}"),
                ("argilla:6900", stock_argilla.url.removeprefix("http://")),
                ("/tmp/", f"{folder}/"),
                ("access_log /dev/stdout", f"access_log {folder}/access.log"),
                ("worker_processes auto", "worker_processes 1"),
            ):
                assert old in text
                text = text.replace(old, new)
            (folder / "nginx.conf").write_text(text)
            shutil.copy(PROXY / "headers.conf", folder)
            return [str(program), "-p", str(folder), "-c", "nginx.conf", "-g", "daemon off;"]

        def ready(port: int) -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/api/v1/version").is_success
            except httpx.TransportError:
                return False

        with running(command, identity, folder / "log", ready) as port:
            yield f"http://127.0.0.1:{port}"


def test_the_proxy_sends_the_same_headers(proxied: str, stock_argilla: StockArgilla) -> None:
    wanted = security_headers(Path(argilla_server.__file__).parent / "static")
    for path in ("/sign-in", "/api/v1/version", "/api/v1/me"):
        answer = httpx.get(proxied + path)
        for name, value in wanted.items():
            assert answer.headers.get_list(name) == [value], (path, name)
        assert STRICT_TRANSPORT[0] not in answer.headers
        assert answer.headers.get("server") == "nginx"
    assert httpx.get(f"{proxied}/api/v1/version").headers["cache-control"] == "no-store"
    assert httpx.get(f"{proxied}/sign-in").headers.get("cache-control") != "no-store"
    secure = httpx.get(f"{proxied}/sign-in", headers={"X-Forwarded-Proto": "https"})
    assert secure.headers[STRICT_TRANSPORT[0]] == STRICT_TRANSPORT[1]
    key = {"X-Argilla-Api-Key": stock_argilla.api_key}
    assert httpx.get(f"{proxied}/api/v1/me", headers=key).json()["username"] == "owner"


def test_the_proxy_slows_down_guessing(proxied: str, stock_argilla: StockArgilla) -> None:
    def log_in(password: str) -> int:
        form = {"username": "owner", "password": password}
        return httpx.post(f"{proxied}/api/v1/token", data=form).status_code

    assert log_in(stock_argilla.password) == 201
    answers = [log_in(f"guess {number}") for number in range(20)]
    assert set(answers) == {401, 429}
    assert answers.count(401) <= 8
    assert httpx.get(f"{proxied}/api/v1/version").is_success
