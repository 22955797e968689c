"""Does a message arrive? A test alert by every channel that is configured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from driftgate.errors import SettingsError
from driftgate.settings import notifier_settings
from schemas.control import AlertEvent, AlertSeverity, AlertStatus, LogPosition
from schemas.settings import KafkaSettings

if TYPE_CHECKING:
    from streams.notify.channels import Channel

__all__ = ["Tried", "channels_of", "try_channels"]


class Tried(msgspec.Struct, frozen=True):
    """What became of a test alert."""

    channel: str
    delivered: bool
    seconds: float
    error: str | None


def channels_of(environ: Mapping[str, str], kafka: KafkaSettings) -> list[Channel]:
    """The ways to people that are configured.

    Raises:
        SettingsError: there is none, or one cannot be used.
    """
    from streams.errors import NotifySettingError  # noqa: PLC0415 - Apprise takes its time
    from streams.notify.channels import open_channels  # noqa: PLC0415

    settings = notifier_settings(environ, kafka)
    try:
        return open_channels(settings.urls, settings.escalation_urls, settings.alertmanager_url)
    except NotifySettingError as error:
        raise SettingsError(str(error)) from error


async def try_channels(channels: Sequence[Channel], service: str) -> list[Tried]:
    """Send a test alert by every channel at once; what became of each."""
    event = _test_alert(service, time.time_ns() // 1_000_000)
    return await asyncio.gather(*(_tried(channel, event) for channel in channels))


async def _tried(channel: Channel, event: AlertEvent) -> Tried:
    from streams.errors import DeliveryError  # noqa: PLC0415 - with Apprise, see above

    began = time.monotonic()
    error = None
    try:
        await channel.send(event)
    except DeliveryError as failure:
        error = str(failure)
    return Tried(channel.name, error is None, round(time.monotonic() - began, 3), error)


def _test_alert(service: str, at_ms: int) -> AlertEvent:
    return AlertEvent(
        id=f"test/{at_ms}",
        key=f"test/{service}",
        rule="test",
        service=service,
        status=AlertStatus.FIRING,
        severity=AlertSeverity.WARNING,
        summary="this is a test: somebody asked whether alerts arrive",
        cure="nothing: it arrived",
        since_ms=at_ms,
        at_ms=at_ms,
        cause=LogPosition(0, 0),
    )
