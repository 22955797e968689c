"""The watch over a service: every feature that the rules name, from the rows of each batch."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.drift import DriftArm, DriftFeature, DriftReading, DriftReference, DriftRules
from schemas.policy import Metric
from streams.drift.bits import BitWatch, new_bit_watch
from streams.drift.blocks import BLOCK_ROWS, LATENCY_BLOCK, Blocks, RecordBlock, new_blocks
from streams.drift.embeddings import EmbeddingWatch, new_embedding_watch
from streams.drift.episode import Episode, Finding
from streams.drift.features import SEMANTIC_FEATURES, DriftRows
from streams.drift.scalar import ScalarWatch, new_scalar_watch
from streams.drift.sums import ArmSums, MeasureMap
from streams.metrics import CANDIDATE, CONTROL
from streams.samples import Samples

__all__ = ["DriftWatch", "new_drift_watch"]

Floats = npt.NDArray[np.float64]

_BITS = {
    DriftFeature.ERROR: Metric.SYSTEM_ERROR,
    DriftFeature.FALLBACK: Metric.SEMANTIC_ERROR,
}
_SIDES = {
    DriftArm.ALL: (CONTROL, CANDIDATE),
    DriftArm.CONTROL: (CONTROL,),
    DriftArm.CANDIDATE: (CANDIDATE,),
}
_LATENCY = DriftFeature.LATENCY
_DISTANCE = DriftFeature.CENTROID_DISTANCE


class _Channel(msgspec.Struct, kw_only=True):
    """Features that the same rows have."""

    features: list[DriftFeature]
    blocks: Blocks
    watches: list[ScalarWatch]

    def feed(self, values: Floats, offset: int, rules: DriftRules) -> list[Finding]:
        """Take rows: values of shape (features, rows)."""
        found: list[Finding] = []
        if not values.size:
            return found
        means = self.blocks.take(values)
        if means.shape[1]:
            for watch, several in zip(self.watches, means.tolist(), strict=True):
                found += watch.take(several, BLOCK_ROWS, offset, rules)
        return found


class DriftWatch(msgspec.Struct, kw_only=True):
    """Of one service, under rules that stay the same; changed in place."""

    share: float
    """Rows between two false alarms of each detector, so that all together keep what the rules
    promise."""
    semantic: _Channel
    lengths: _Channel
    bits: list[BitWatch]
    latency: ScalarWatch | None
    records: RecordBlock
    embeddings: EmbeddingWatch | None
    map: MeasureMap

    def take(
        self,
        samples: Samples,
        sums: tuple[ArmSums | None, ArmSums | None],
        offset: int,
        rules: DriftRules,
    ) -> list[Finding]:
        """Take what one look at the log brings: the rows of a batch, or of several.

        Args:
            samples: rows that were not counted before.
            sums: of them, by arm.
            offset: of the last record in the log.
            rules: that the watch was made for.

        Returns:
            The episodes that begin or end, in this order.
        """
        sides = _SIDES[rules.arm]
        seen = [sums[side] if side in sides else None for side in (CONTROL, CANDIDATE)]
        placed = (self.map.takes(seen[CONTROL]), self.map.takes(seen[CANDIDATE]))
        taken = DriftRows(samples.rows, rules.arm)
        found: list[Finding] = []
        if taken.semantic:
            if self.semantic.features:
                values = taken.semantic_values(self.semantic.features, placed)
                found += self.semantic.feed(values, offset, rules)
            if self.latency is not None:
                block = self.records.take(taken.log_latency(), taken.semantic)
                if block is not None:
                    found += self.latency.take([block[0]], block[1], offset, rules)
        if self.lengths.features:
            found += self.lengths.feed(taken.lengths(), offset, rules)
        for watch in self.bits:
            rates = [samples.rate(_BITS[watch.feature], side) for side in sides]
            rows, hits = sum(n for n, _ in rates), sum(h for _, h in rates)
            found += watch.take(rows, hits, offset, rules)
        if self.embeddings is not None:
            ours = [one for one, is_ours in zip(seen, placed, strict=True) if one and is_ours]
            foreign = sum(one.rows for one in seen if one) - sum(one.rows for one in ours)
            if any(one.rows for one in ours):
                found += self.embeddings.take(ours, offset, rules)
            if foreign or self.map.foreign_since_ours:
                self.map.count_rows(bool(ours), foreign)
                found += self._follow(rules)
        return found

    def _scalars(self) -> list[ScalarWatch | BitWatch]:
        latency = [self.latency] if self.latency is not None else []
        return [*self.semantic.watches, *self.lengths.watches, *latency, *self.bits]

    def readings(self) -> list[DriftReading]:
        """How every detector stands."""
        found: list[DriftReading] = []
        for watch in self._scalars():
            readings = watch.readings()
            if watch.feature is _DISTANCE and self.map.foreign_rows:
                foreign = self.map.foreign_rows
                readings = [msgspec.structs.replace(r, foreign_rows=foreign) for r in readings]
            found += readings
        if self.embeddings is not None:
            found += self.embeddings.readings(self.map.foreign_rows)
        return found

    def close(self) -> list[Finding]:
        """The end of the episodes that are open: nothing is watched any more."""
        ended = [_ended(w.feature, w.episode, w.reference) for w in self._scalars() if w.episode]
        if self.embeddings is not None and self.embeddings.episode is not None:
            episode = self.embeddings.episode
            ended.append(_ended(DriftFeature.EMBEDDINGS, episode, self.embeddings.reference))
        return ended

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
    embeddings = None
    if DriftFeature.EMBEDDINGS in features:
        embeddings = new_embedding_watch(share=share, reference=reference)

    def channel(of_rows: Sequence[DriftFeature]) -> _Channel:
        chosen = [feature for feature in of_rows if feature in features]
        return _Channel(
            features=chosen,
            blocks=new_blocks(len(chosen), BLOCK_ROWS),
            watches=[_scalar(feature, share, reference) for feature in chosen],
        )

    return DriftWatch(
        share=share,
        semantic=channel(SEMANTIC_FEATURES),
        lengths=channel([DriftFeature.PROMPT_LENGTH]),
        bits=[new_bit_watch(feature, share=share) for feature in _BITS if feature in features],
        latency=_scalar(_LATENCY, share, reference) if _LATENCY in features else None,
        records=RecordBlock(),
        embeddings=embeddings,
        map=_map_of(reference),
    )
