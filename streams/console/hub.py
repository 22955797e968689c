"""Tells every open page what has changed, section by section, without ever queueing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable

from streams.console.model import Section

__all__ = ["Hub", "Pushed"]

COALESCE_S = 0.05
"""What comes within it is pushed as one: below what an eye sees, above what a poll takes."""

Pushed = tuple[str, bytes]
"""Name and JSON of what a page is sent."""


class Hub:
    """Who looks, and what they have not seen yet.

    A page that reads slowly is sent the newest state when it is ready, and nothing in between.

    Args:
        render: a section of a service as JSON, as it is now.
        pulse: what every page is sent every few seconds: it knows by it that it is connected.
        pulse_s: how often.
        most: pages at a time.
    """

    def __init__(
        self,
        render: Callable[[Section, str], bytes],
        pulse: Callable[[], bytes],
        *,
        pulse_s: float = 2.0,
        most: int = 200,
    ) -> None:
        self._render = render
        self._pulse = pulse
        self._pulse_s = pulse_s
        self._most = most
        self._versions: Counter[tuple[str, Section]] = Counter()
        self._everywhere = 0
        """Raised when the section SERVICE changes, which lists all services."""
        self._changed = asyncio.Event()
        self._closed = False
        self.pages = 0

    @property
    def full(self) -> bool:
        """Whether no more pages are taken."""
        return self.pages >= self._most

    def changed(self, service: str, sections: Iterable[Section]) -> None:
        """Sections are not what they were."""
        found = list(sections)
        for section in found:
            self._versions[service, section] += 1
        if Section.SERVICE in found:
            self._everywhere += 1
        if found:
            self._wake()

    def told(self) -> None:
        """What the pulse says has changed: send it now."""
        self._everywhere += 1
        self._wake()

    def close(self) -> None:
        """End all streams; pages connect again by themselves."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        woken, self._changed = self._changed, asyncio.Event()
        woken.set()

    async def follow(self, service: str) -> AsyncIterator[list[Pushed]]:
        """Everything at once, then what changes, until closed.

        Yields at least once a pulse, so that whoever sends can also look at other things.
        """
        seen: dict[Section, int] = {}
        sent: dict[Section, bytes] = {}
        self.pages += 1
        try:
            while not self._closed:
                changed = self._changed
                yield [*self._news(service, seen, sent), ("pulse", self._pulse())]
                try:
                    async with asyncio.timeout(self._pulse_s):
                        await changed.wait()
                    await asyncio.sleep(COALESCE_S)
                except TimeoutError:
                    # Time alone changes these: who is late, and for how long.
                    seen.pop(Section.SERVICE, None)
                    seen.pop(Section.WORKERS, None)
        finally:
            self.pages -= 1

    def _news(
        self, service: str, seen: dict[Section, int], sent: dict[Section, bytes]
    ) -> Iterable[Pushed]:
        for section in Section:
            version = self._versions[service, section]
            if section is Section.SERVICE:
                version += self._everywhere
            if seen.get(section) == version:
                continue
            seen[section] = version
            data = self._render(section, service)
            if sent.get(section) != data:
                sent[section] = data
                yield (section.value, data)
