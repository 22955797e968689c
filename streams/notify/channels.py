"""The ways to people: every service that Apprise knows, and Alertmanager."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

import aiohttp
import apprise

from schemas.control import AlertEvent
from streams.errors import DeliveryError, NotifySettingError
from streams.notify.messages import alertmanager_alert, is_for_escalation, message_of

__all__ = ["TIMEOUT_SECONDS", "AlertmanagerChannel", "AppriseChannel", "Channel", "open_channels"]

TIMEOUT_SECONDS = 10.0
"""An attempt that takes longer has failed, and is made again."""


class Channel(Protocol):
    """A way to somebody."""

    @property
    def name(self) -> str:
        """Says which, holds no secret, and stays the same: its consumer group is named by it."""

    def wants(self, event: AlertEvent) -> bool:
        """Whether an alert goes this way."""

    async def send(self, event: AlertEvent) -> None:
        """Deliver.

        Raises:
            DeliveryError: not delivered, or not known to be; it may be tried again.
        """


class AppriseChannel:
    """One Apprise URL.

    Args:
        url: as Apprise documents them; may hold secrets, and is never shown.
        escalation: whether it only hears of what nobody has acknowledged.

    Raises:
        NotifySettingError: Apprise does not know such a URL.
    """

    def __init__(self, url: str, *, escalation: bool = False) -> None:
        self._apprise = apprise.Apprise()
        scheme = url.partition(":")[0]
        if not self._apprise.add(url):
            raise NotifySettingError(
                f"Apprise cannot use the URL that begins with {scheme!r}: see the list of services "
                "and their URLs in Apprise's documentation"
            )
        self._escalation = escalation
        digest = blake2b(url.encode(), digest_size=4).hexdigest()
        kind = "escalation-" if escalation else ""
        self.name = f"{kind}{re.sub(r'[^a-z0-9]+', '-', scheme.lower())}-{digest}"

    def wants(self, event: AlertEvent) -> bool:
        """Everything, or escalations and what becomes of them."""
        return is_for_escalation(event) if self._escalation else True

    async def send(self, event: AlertEvent) -> None:
        """Deliver by the service that the URL names.

        Raises:
            DeliveryError: it did not take it.
        """
        message = message_of(event)
        kind = apprise.NotifyType.FAILURE if message.urgent else apprise.NotifyType.INFO
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                result = await self._apprise.async_notify(
                    title=message.title, body=message.body, notify_type=kind
                )
        except TimeoutError as error:
            raise DeliveryError(f"no answer within {TIMEOUT_SECONDS:g} s") from error
        if not result:
            said = "; ".join(entry.message for entry in result.logs() if entry.message)
            raise DeliveryError(said or "not accepted")


class AlertmanagerChannel:
    """Prometheus' Alertmanager, by its API v2.

    Args:
        url: its root, for example ``http://127.0.0.1:9093``.

    Raises:
        NotifySettingError: no such URL.
    """

    name = "alertmanager"

    def __init__(self, url: str) -> None:
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url):
            raise NotifySettingError(
                f"{url!r} is no URL of an Alertmanager, such as http://127.0.0.1:9093"
            )
        self._url = f"{url.rstrip('/')}/api/v2/alerts"

    def wants(self, event: AlertEvent) -> bool:  # noqa: ARG002 - it routes by itself
        """Everything."""
        return True

    async def send(self, event: AlertEvent) -> None:
        """Post it.

        Raises:
            DeliveryError: no answer, or not a good one.
        """
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(self._url, json=[alertmanager_alert(event)]) as answer,
            ):
                if answer.status >= 300:
                    text = (await answer.text())[:200]
                    raise DeliveryError(f"HTTP {answer.status}: {text}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DeliveryError(f"{self._url}: {type(error).__name__}: {error}") from error


def open_channels(
    urls: Sequence[str], escalation_urls: Sequence[str], alertmanager_url: str | None
) -> list[Channel]:
    """All ways that are configured; each once.

    Raises:
        NotifySettingError: one cannot be used.
    """
    channels: list[Channel] = [AppriseChannel(url) for url in dict.fromkeys(urls)]
    channels += [AppriseChannel(url, escalation=True) for url in dict.fromkeys(escalation_urls)]
    if alertmanager_url:
        channels.append(AlertmanagerChannel(alertmanager_url))
    return channels
