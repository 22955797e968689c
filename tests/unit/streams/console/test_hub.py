"""Pages are told what has changed, all of it, and without a queue."""

from __future__ import annotations

import asyncio
from collections import Counter

from streams.console.hub import Hub, Pushed
from streams.console.model import Section


class World:
    """Something to look at that changes."""

    def __init__(self, **options: float) -> None:
        self.values: Counter[tuple[str, Section]] = Counter()
        self.hub = Hub(self.render, lambda: b"{}", **options)  # type: ignore[arg-type]

    def render(self, section: Section, service: str) -> bytes:
        return str(self.values[service, section]).encode()

    def change(self, service: str, *sections: Section) -> None:
        for section in sections:
            self.values[service, section] += 1
        self.hub.changed(service, sections)


def names(pushed: list[Pushed]) -> set[str]:
    return {name for name, _ in pushed}


async def test_a_page_gets_everything_and_then_what_changes() -> None:
    """First all sections, then those of its service that are not what they were."""
    world = World(pulse_s=60.0)
    page = world.hub.follow("shop")
    assert names(await anext(page)) == {*Section, "pulse"}
    world.change("search", Section.GATES)
    world.change("shop", Section.GATES, Section.ALERTS)
    assert names(await anext(page)) == {"gates", "alerts", "pulse"}
    await page.aclose()  # type: ignore[attr-defined]
    assert world.hub.pages == 0


async def test_a_slow_page_gets_the_newest_state_alone() -> None:
    """However much happens while it is not looking, it gets each section once."""
    world = World(pulse_s=60.0)
    page = world.hub.follow("shop")
    await anext(page)
    for _ in range(10_000):
        world.change("shop", Section.WINDOWS)
    found = await anext(page)
    assert [each for each in found if each[0] == "windows"] == [("windows", b"10000")]


async def test_nothing_is_lost_between_a_look_and_the_next_wait() -> None:
    """What changes while a page is being sent is sent after that."""
    world = World(pulse_s=60.0)
    page = world.hub.follow("shop")
    await anext(page)
    world.change("shop", Section.CASES)
    waiting = asyncio.create_task(anext(page))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    world.change("shop", Section.GATES)
    found = names(await waiting)
    if "gates" not in found:
        found |= names(await anext(page))
    assert {"cases", "gates"} <= found


async def test_what_is_as_it_was_is_not_sent_again() -> None:
    """An event that changes nothing on the page costs a page nothing."""
    world = World(pulse_s=60.0)
    page = world.hub.follow("shop")
    await anext(page)
    world.hub.changed("shop", [Section.GATES])
    assert names(await anext(page)) == {"pulse"}


async def test_every_page_hears_of_other_services() -> None:
    """The list of services stands on every page."""
    world = World(pulse_s=60.0)
    page = world.hub.follow("shop")
    await anext(page)
    world.values["shop", Section.SERVICE] += 1
    world.change("search", Section.SERVICE)
    assert names(await anext(page)) == {"service", "pulse"}


async def test_silence_is_a_pulse_with_what_time_changes() -> None:
    """A page knows by the pulse that it is connected; who is late is looked at again."""
    world = World(pulse_s=0.01)
    page = world.hub.follow("shop")
    await anext(page)
    assert names(await anext(page)) == {"pulse"}
    world.values["shop", Section.WORKERS] += 1
    world.values["shop", Section.GATES] += 1
    assert names(await anext(page)) == {"workers", "pulse"}


async def test_an_end_wakes_everybody() -> None:
    """When the console stops its streams end at once."""
    world = World(pulse_s=3600.0)
    page = world.hub.follow("shop")
    await anext(page)
    waiting = asyncio.create_task(anext(page, None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    world.hub.close()
    assert await waiting is None


async def test_there_is_an_end_to_pages() -> None:
    """A console does not take more pages than it can serve."""
    world = World(pulse_s=60.0, most=1)
    assert not world.hub.full
    page = world.hub.follow("shop")
    await anext(page)
    assert world.hub.full
