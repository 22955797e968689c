"""The watch over a service: every feature that the rules name, from the rows of each batch."""

from __future__ import annotations

import msgspec
import numpy as np

from schemas.drift import DriftArm, DriftFeature, DriftReading, DriftReference, DriftRules
from schemas.log import Rows
from streams.drift.bits import BitWatch, new_bit_watch
from streams.drift.blocks import BLOCK_ROWS, LATENCY_BLOCK, Blocks, new_blocks
from streams.drift.embeddings import EmbeddingWatch, new_embedding_watch
from streams.drift.episode import Episode, Finding
from streams.drift.features import SEMANTIC_FEATURES, DriftRows
from streams.drift.scalar import ScalarWatch, new_scalar_watch
from streams.drift.sums import ArmSums, MeasureMap

__all__ = ["DriftWatch", "new_drift_watch"]

_BITS = (DriftFeature.ERROR, DriftFeature.FALLBACK)
_LATENCY = DriftFeature.LATENCY
_DISTANCE = DriftFeature.CENTROID_DISTANCE


class _Channel(msgspec.Struct, kw_only=True):
    """Features that the same rows have."""

    blocks: Blocks
    watches: list[ScalarWatch | BitWatch]


class DriftWatch(msgspec.Struct, kw_only=True):
    """Of one service, under rules that stay the same; changed in place."""

    share: float
    """Rows between two false alarms of each detector, so that all together keep what the rules
    promise."""
    semantic: _Channel
    others: list[_Channel]
    """Of one feature each."""
    embeddings: EmbeddingWatch | None
    map: MeasureMap
    latency_rows: int = 0
    """Of the records in the block of latencies that is not full."""

    def take(
        self,
        rows: Rows,
        sums: tuple[ArmSums | None, ArmSums | None],
        offset: int,
        rules: DriftRules,
        *,
        whole: bool,
    ) -> list[Finding]:
        """Take a batch.

        Args:
            rows: of it that were not counted before.
            sums: of all of its rows, by arm.
            offset: of its record in the log.
            rules: that the watch was made for.
            whole: whether the rows are all of the batch's.

        Returns:
            The episodes that begin or end, in this order.
        """
        watched = (rules.arm is not DriftArm.CANDIDATE, rules.arm is not DriftArm.CONTROL)
        seen = [one for one, is_watched in zip(sums, watched, strict=True) if is_watched]
        ours = [one for one in seen if one is not None and self.map.takes(one)]
        control, candidate = (any(one is each for each in ours) for one in sums)
        taken = DriftRows(rows, rules.arm, (control, candidate))
        found: list[Finding] = []
        if self.semantic.watches and taken.semantic:
            values = taken.semantic_values([watch.feature for watch in self.semantic.watches])
            found += _feed(self.semantic, values, BLOCK_ROWS, offset, rules)
        for channel in self.others:
            found += self._take_other(channel, taken, offset, rules)
        if self.embeddings is not None and ours and whole:
            summed = ours[0].values.astype(np.float64)
            for one in ours[1:]:
                summed += one.values
            finding = self.embeddings.take(summed, sum(one.rows for one in ours), offset, rules)
            if finding is not None:
                found.append(finding)
        counted = sum(one.rows for one in ours)
        foreign = sum(one.rows for one in seen if one is not None) - counted
        if foreign or self.map.foreign_since_ours:
            self.map.count_rows(counted, foreign)
            found += self._follow(rules)
        return found

    def readings(self) -> list[DriftReading]:
        """How every detector stands."""
        found: list[DriftReading] = []
        for channel in (self.semantic, *self.others):
            for watch in channel.watches:
                readings = watch.readings()
                if watch.feature is _DISTANCE and self.map.foreign_rows:
                    readings = [
                        msgspec.structs.replace(each, foreign_rows=self.map.foreign_rows)
                        for each in readings
                    ]
                found += readings
        if self.embeddings is not None:
            found += self.embeddings.readings(self.map.foreign_rows)
        return found

    def close(self) -> list[Finding]:
        """The end of the episodes that are open: nothing is watched any more."""
        watches = [w for channel in (self.semantic, *self.others) for w in channel.watches]
        ended = [_ended(w.feature, w.episode, w.reference) for w in watches if w.episode]
        if self.embeddings is not None and self.embeddings.episode is not None:
            episode = self.embeddings.episode
            ended.append(_ended(DriftFeature.EMBEDDINGS, episode, self.embeddings.reference))
        return ended

    def _take_other(
        self, channel: _Channel, taken: DriftRows, offset: int, rules: DriftRules
    ) -> list[Finding]:
        match channel.watches[0].feature:
            case DriftFeature.PROMPT_LENGTH:
                values = taken.lengths()
            case DriftFeature.ERROR:
                values = taken.errors()
            case DriftFeature.FALLBACK:
                values = taken.fallbacks()
            case _:
                return self._take_latency(channel, taken, offset, rules)
        return _feed(channel, values, BLOCK_ROWS, offset, rules) if values.size else []

    def _take_latency(
        self, channel: _Channel, taken: DriftRows, offset: int, rules: DriftRules
    ) -> list[Finding]:
        value = taken.log_latency()
        if value is None:
            return []
        self.latency_rows += taken.semantic
        found = _feed(channel, np.array([[value]]), self.latency_rows, offset, rules)
        if not channel.blocks.tail.size:
            self.latency_rows = 0
        return found

    def _follow(self, rules: DriftRules) -> list[Finding]:
        """Learn anew when nobody measures any more with what was learned from."""
        if self.map.fixed or self.map.foreign_since_ours < rules.learn_rows:
            return []
        found = []
        self.map = _map_of(None)
        if self.embeddings is not None:
            if self.embeddings.episode is not None:
                found.append(_ended(DriftFeature.EMBEDDINGS, self.embeddings.episode, None))
            self.embeddings = new_embedding_watch(share=self.share, reference=None)
        for place, watch in enumerate(self.semantic.watches):
            if watch.feature is _DISTANCE:
                if watch.episode is not None:
                    found.append(_ended(_DISTANCE, watch.episode, None))
                self.semantic.watches[place] = _scalar(_DISTANCE, self.share, None)
        return found


def _feed(
    channel: _Channel, values: np.ndarray, rows: int, offset: int, rules: DriftRules
) -> list[Finding]:
    means = channel.blocks.take(values)
    if not means.shape[1]:
        return []
    found: list[Finding] = []
    for watch, several in zip(channel.watches, means.tolist(), strict=True):
        found += watch.take(several, rows, offset, rules)
    return found


def _ended(feature: DriftFeature, episode: Episode, reference: str | None) -> Finding:
    return Finding(
        feature=feature,
        detector=episode.detector,
        begins=False,
        watched_anew=True,
        statistic=0.0,
        threshold=0.0,
        direction=episode.direction,
        first_offset=episode.first_offset,
        reference=reference,
    )


def _scalar(feature: DriftFeature, share: float, reference: DriftReference | None) -> ScalarWatch:
    size = LATENCY_BLOCK if feature is _LATENCY else BLOCK_ROWS
    return new_scalar_watch(feature, size=size, share=share, reference=reference)


def _map_of(reference: DriftReference | None) -> MeasureMap:
    if reference is None:
        return MeasureMap(id=None, count=0, fixed=False)
    return MeasureMap(id=reference.id, count=reference.fourier.count, fixed=True)


def new_drift_watch(rules: DriftRules) -> DriftWatch:
    """A watch that has seen nothing.

    Args:
        rules: that it is for, until another is made.
    """
    features, reference = rules.features, rules.reference
    detectors = sum(
        1 if feature in _BITS or feature is DriftFeature.EMBEDDINGS else 2 for feature in features
    )
    share = rules.average_run_length * max(detectors, 1)
    semantic = [feature for feature in SEMANTIC_FEATURES if feature in features]
    others = [
        feature for feature in (DriftFeature.PROMPT_LENGTH, _LATENCY, *_BITS) if feature in features
    ]
    embeddings = None
    if DriftFeature.EMBEDDINGS in features:
        embeddings = new_embedding_watch(share=share, reference=reference)
    return DriftWatch(
        share=share,
        semantic=_Channel(
            blocks=new_blocks(len(semantic), BLOCK_ROWS),
            watches=[_scalar(feature, share, reference) for feature in semantic],
        ),
        others=[_other(feature, share, reference) for feature in others],
        embeddings=embeddings,
        map=_map_of(reference),
    )


def _other(feature: DriftFeature, share: float, reference: DriftReference | None) -> _Channel:
    if feature in _BITS:
        watch: ScalarWatch | BitWatch = new_bit_watch(feature, size=BLOCK_ROWS, share=share)
    else:
        watch = _scalar(feature, share, reference)
    return _Channel(blocks=new_blocks(1, watch.size), watches=[watch])
