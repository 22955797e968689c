"""An address of a Redis that cannot be one is refused at start, with the cure, without a secret."""

from __future__ import annotations

import sys

import pytest
from redis import SSLConnection

from analyzer.cache_redis_url import RedisSettingError, check_redis_url, connect
from driftgate.errors import Exit, SettingsError
from driftgate.settings import analyzer_settings
from schemas.settings import KafkaSettings

WRONG = {
    "nothing": "",
    "host alone": "localhost:6379",
    "other scheme": "http://localhost:6379",
    "no host": "redis://",
    "no host, a database": "redis:///1",
    "port in words": "redis://localhost:port",
    "port too large": "redis://localhost:70000",
    "port 0": "redis://localhost:0",
    "database in words": "redis://localhost/cache",
    "path": "redis://localhost/0/1",
    "blank": "redis://my host:6379",
    "fragment": "redis://localhost/0#1",
    "own time-out": "redis://localhost?socket_timeout=60",
    "other answers": "redis://localhost?decode_responses=true",
    "TLS option without TLS": "redis://localhost?ssl_cert_reqs=none",
    "unknown TLS option": "rediss://localhost?ssl_colour=blue",
    "wrong TLS option": "rediss://localhost?ssl_cert_reqs=maybe",
    "no socket": "unix://",
    "socket on a host": "unix://localhost/run/redis.sock",
    "database of a socket in words": "unix:///run/redis.sock?db=x",
    "broken brackets": "redis://[::1",
}


@pytest.mark.parametrize("url", WRONG.values(), ids=WRONG)
def test_a_wrong_address_is_refused_with_the_cure(url: str) -> None:
    """The message shows how to write one."""
    with pytest.raises(RedisSettingError, match=r"redis://\[user:password@\]host"):
        check_redis_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/",
        "redis://10.0.0.7:6380/15",
        "redis://[::1]:6379/0",
        "redis://:p%40ss@cache.internal",
        "redis://worker:secret@cache.internal:6379/2",
        "rediss://worker:secret@cache.internal:6379/2?ssl_cert_reqs=required",
        "rediss://cache.internal?ssl_ca_certs=/etc/ssl/ca.pem",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_a_right_address_is_taken(url: str) -> None:
    """Nothing is connected for it."""
    check_redis_url(url)


def test_parts_of_the_address_get_where_they_belong() -> None:
    """Host, port, database, user and password, TLS; time-outs are ours, and one attempt."""
    client = connect("rediss://worker:p%40ss@cache.internal:6380/2", socket_seconds=0.02)
    pool = client.connection_pool
    options = pool.connection_kwargs
    assert pool.connection_class is SSLConnection
    assert (options["host"], options["port"], options["db"]) == ("cache.internal", 6380, 2)
    assert (options["username"], options["password"]) == ("worker", "p@ss")
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 0.02
    assert options["retry"].get_retries() == 0
    assert pool.max_connections == 1


@pytest.mark.parametrize(
    "url",
    [
        "redis://worker:hunter2@localhost:port",
        "redis://worker:hunter2#x@localhost",
        "redis://worker:6379?hunter2@localhost",
        "redis://worker:6379?hunter2=1@localhost",
        "redis://worker:6379/hunter2@localhost",
        "redis://worker:hunter2/@localhost",
        "redis://worker:hunter2@localhost?socket_timeout=1",
        "http://worker:hunter2@localhost",
    ],
)
def test_no_secret_is_told(url: str) -> None:
    """The settings name the variable and the cure; the password stays where it is."""
    says = r"DRIFTGATE_REDIS_URL cannot be used: .*redis://"
    with pytest.raises(SettingsError, match=says) as it:
        analyzer_settings({"DRIFTGATE_REDIS_URL": url}, KafkaSettings())
    assert it.value.code == Exit.SETTINGS
    error: BaseException | None = it.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_settings_of_the_shared_cache() -> None:
    """Off by default; the address and the life of a vector come from the environment."""
    assert analyzer_settings({}, KafkaSettings()).redis_url is None
    found = analyzer_settings(
        {"DRIFTGATE_REDIS_URL": " redis://r ", "DRIFTGATE_REDIS_TTL_SECONDS": "60"}, KafkaSettings()
    )
    assert (found.redis_url, found.redis_ttl_seconds) == ("redis://r", 60)
    with pytest.raises(SettingsError, match="DRIFTGATE_REDIS_TTL_SECONDS"):
        analyzer_settings({"DRIFTGATE_REDIS_TTL_SECONDS": "0"}, KafkaSettings())


def test_a_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names a Redis without having installed its client learns what to install."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(RedisSettingError, match=r"pip install 'driftgate\[redis\]'"):
        check_redis_url("redis://localhost")
