"""Where the shared cache is: an address of a Redis, checked before a worker starts."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from analyzer.errors import AnalyzerError

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["SOCKET_SECONDS", "RedisSettingError", "check_redis_url", "connect"]

SOCKET_SECONDS = 0.05
"""To connect, and between two parts of an answer: a Redis nearby needs 1 ms. A longer one gives a
Redis that hangs more of each batch's time, a shorter one mistakes a busy machine for a dead one."""

_SCHEMES = ("redis", "rediss", "unix")
_FORMS = (
    "write it as redis://[user:password@]host[:port][/database], as rediss://... for TLS, or as "
    "unix:///path/to/socket, with all but letters and digits of the password percent-encoded; "
    "empty for no shared cache"
)


class RedisSettingError(AnalyzerError):
    """A Redis that cannot be used as it is named; the message holds the cure, and no password."""


def check_redis_url(url: str) -> None:
    """Refuse an address that cannot be one; nothing is connected.

    Raises:
        RedisSettingError: with the cure, and without the address: it may hold a password.
    """
    if find_spec("redis") is None:
        raise RedisSettingError(
            "the client of Redis is not installed: pip install 'driftgate[redis]', or leave the "
            "address empty for no shared cache"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Its text quotes what may be a part of the password.
        raise RedisSettingError(
            f"its port is no number, or its password is not percent-encoded: {_FORMS}"
        ) from None
    if parts.scheme not in _SCHEMES or re.search(r"\s", url) or parts.fragment:
        raise RedisSettingError(f"it is no address of a Redis: {_FORMS}")
    if parts.scheme == "unix":
        if parts.hostname or len(parts.path) < 2:
            raise RedisSettingError(f"it names no socket: {_FORMS}")
    elif not parts.hostname or port == 0:
        raise RedisSettingError(f"it names no host, or the port 0: {_FORMS}")
    elif not re.fullmatch(r"/?|/\d{1,5}", parts.path, re.ASCII):
        raise RedisSettingError(f"its database is no number: {_FORMS}")
    # What is said there would go before the time-outs above, or change the form of the answers.
    options = parse_qsl(parts.query, keep_blank_values=True)
    if not all(_option_fits(parts.scheme, name, value) for name, value in options):
        raise RedisSettingError(
            "after a question mark there may only be ssl_... of rediss://, and db=<number> of "
            f"unix://: {_FORMS}"
        )
    try:
        connect(url).connection_pool.make_connection()
    except Exception as error:  # noqa: BLE001 - of whichever class it refuses them with
        raise RedisSettingError(
            f"the client of Redis does not take its options ({type(error).__name__}): {_FORMS}"
        ) from None


def connect(url: str, socket_seconds: float = SOCKET_SECONDS) -> Redis:
    """A client of a checked address, for one thread; it connects when it is first used.

    Args:
        url: see :func:`check_redis_url`.
        socket_seconds: to connect, and between two parts of an answer.
    """
    from redis import ConnectionPool, Redis  # noqa: PLC0415 - it is an optional dependency
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    pool = ConnectionPool.from_url(
        url,
        max_connections=1,
        socket_connect_timeout=socket_seconds,
        socket_timeout=socket_seconds,
        # The next batch tries again; by default it is done three times at once, with pauses.
        retry=Retry(NoBackoff(), 0),
        # Version 2 of the protocol, and no name: less to ask and to wait for with each connection.
        protocol=2,
        driver_info=None,
    )
    return Redis(connection_pool=pool)


def _option_fits(scheme: str, name: str, value: str) -> bool:
    if scheme == "unix":
        return name == "db" and value.isdecimal()
    return scheme == "rediss" and name.startswith("ssl_") and bool(value)
