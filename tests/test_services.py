"""The throw-away PostgreSQL and Redis that other tests stand on."""

import redis
from postgres import Postgres
from sqlalchemy.engine import make_url


def test_a_new_database_is_empty_and_ones_own(postgres: Postgres, postgres_url: str) -> None:
    name = make_url(postgres_url).database
    assert name is not None
    connection = postgres.connect(name)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema='public'")
        assert cursor.fetchone() == (0,)
    connection.close()
    assert postgres.create_database() != postgres_url
    assert postgres.password not in repr(postgres)


def test_redis_keeps_what_it_is_given(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("key", "value")
        assert client.get("key") == b"value"
