"""A throw-away Redis for the tests, from Debian's package or the PATH."""

import secrets
from collections.abc import Iterator

import pytest
import redis
from services import find_program, private_folder, running


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a Redis of the session's own; skips where Redis is not installed."""
    program = find_program("redis-server")
    password = secrets.token_hex(16)
    with private_folder("redis") as (folder, identity):

        def command(port: int) -> list[str]:
            options = {"port": port, "bind": "127.0.0.1", "save": '""', "appendonly": "no"}
            settings = options | {"requirepass": password, "dir": folder}
            file = folder / "redis.conf"
            file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
            return [str(program), str(file)]

        def address(port: int) -> str:
            return f"redis://:{password}@127.0.0.1:{port}/0"

        def ready(port: int) -> bool:
            client = redis.Redis.from_url(address(port))
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False
            finally:
                client.close()

        with running(command, identity, folder / "log", ready) as port:
            yield address(port)
