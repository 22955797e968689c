"""The cases of `prompts.curated`: the newest of each event, and what somebody asks for of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from driftgate.reading import TopicReader
from schemas import cloudevents
from schemas.errors import DecodeError
from schemas.feedback import CaseReason, CuratedCase
from schemas.settings import KafkaSettings
from schemas.topics import Topic

__all__ = ["CaseFilter", "Cases", "moment", "read_cases", "write_jsonl"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class CaseFilter(NamedTuple):
    """Which cases are asked for; an empty filter is all."""

    service: str | None = None
    reasons: Collection[CaseReason] = ()
    """Any of them."""
    since_ms: int = 0

    def takes(self, case: CuratedCase) -> bool:
        """Whether a case is asked for."""
        return (
            (self.service is None or case.service == self.service)
            and (not self.reasons or any(reason in case.reasons for reason in self.reasons))
            and case.curated_ms >= self.since_ms
        )


class Cases(NamedTuple):
    """What was found on the topic."""

    cases: list[CuratedCase]
    """Those that were asked for, the newest first."""
    unreadable: int
    """Records that are no cases."""


def moment(text: str, now: datetime) -> int:
    """A moment in ms since the epoch: so long ago (``90m``, ``24h``, ``7d``), or a date and time.

    Args:
        text: ISO 8601, UTC where it names no zone; or a whole number of s, m, h, d or w.
        now: what is counted back from.

    Raises:
        ValueError: it is neither.
    """
    ago = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if ago:
        then = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    else:
        try:
            then = datetime.fromisoformat(text.strip())
        except ValueError as error:
            raise ValueError(
                f"{text!r} is neither so long ago (90m, 24h, 7d) nor a date and time "
                "(2026-01-31, 2026-01-31T08:00:00Z)"
            ) from error
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(round(then.timestamp() * 1000), 0)


async def read_cases(
    kafka: KafkaSettings, wanted: CaseFilter, progress: Callable[[int], None] = lambda _: None
) -> Cases:
    """Read the topic to its present end.

    Args:
        kafka: where.
        wanted: which cases.
        progress: told the number of records read so far.
    """
    newest: dict[str, CuratedCase] = {}
    unreadable = number = 0
    async with TopicReader(kafka, Topic.CURATED) as reader:
        async for record in reader.to_end():
            number += 1
            if number % 1000 == 0:
                progress(number)
            if record.value is None:
                # A tombstone: somebody wants the case to be forgotten.
                newest.pop((record.key or b"").decode("utf-8", "replace"), None)
                continue
            try:
                case = cloudevents.decode_json(record.value, CuratedCase)
            except DecodeError:
                unreadable += 1
                continue
            # An event's cases are in one partition, in order.
            newest[case.id] = case
    found = [case for case in newest.values() if wanted.takes(case)]
    return Cases(sorted(found, key=lambda case: (-case.curated_ms, case.id)), unreadable)


def write_jsonl(path: Path, cases: Collection[CuratedCase]) -> None:
    """Write a file, a case a line; whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        for case in cases:
            file.write(cloudevents.encode_json(case) + b"\n")
    part.replace(path)
