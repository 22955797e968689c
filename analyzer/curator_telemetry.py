"""What a curator counts for whoever looks at it from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from analyzer.feedback_queue import Accepted, Rejected
from schemas.feedback import CuratedCase

__all__ = ["CuratorTelemetry"]


class CuratorTelemetry:
    """All that was delivered since the start of the process."""

    def __init__(self) -> None:
        self.feedback: Counter[tuple[str, str]] = Counter()
        """By kind and rating: negative (up to 0.25), neutral, positive (from 0.75)."""
        self.joined: Counter[str] = Counter()
        """By what told whose result it is about: the feedback's attribution, or the table."""
        self.rejected: Counter[str] = Counter()
        """By code."""
        self.cases: Counter[str] = Counter()
        """Records on `prompts.curated`, by each of their reasons."""
        self.passed_over: Counter[str] = Counter()
        """What might have been a case: duplicate, over_budget, or not_remembered (negative
        feedback on an event that is not)."""
        self.undecodable: Counter[str] = Counter()
        """Records of our own topics that could not be read, by topic."""
        self.failures = 0
        """Connections that were given up and made anew."""
        self.turns = 0
        """Turns of the loop, and attempts to connect: one that stands still makes none."""
        self.ready = False
        """Whether it has its partitions, and the table was read once."""
        self.lag: Mapping[str, int] = {}
        """Committed records that were not handled yet, by topic."""
        self.waiting = 0
        """Feedback that waits for its event."""
        self.remembered = 0
        """Events in the table."""

    def take(
        self,
        accepted: Iterable[Accepted],
        rejected: Iterable[Rejected],
        cases: Sequence[CuratedCase],
    ) -> None:
        """Count what was delivered."""
        for one in accepted:
            value = one.attributed.given.value
            rating = "negative" if value <= 0.25 else "positive" if value >= 0.75 else "neutral"
            self.feedback[str(one.attributed.given.kind), rating] += 1
            self.joined["table" if one.by_table else "attribution"] += 1
        self.rejected.update(str(each.letter.code) for each in rejected)
        for case in cases:
            self.cases.update(str(reason) for reason in case.reasons)
