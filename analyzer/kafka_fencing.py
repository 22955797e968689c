"""A transactional producer that commits offsets as a member of its consumer group (KIP-447).

aiokafka 0.14 sends version 0 of TxnOffsetCommit, which names the group only: a worker that lost its
partitions in a rebalance without noticing could still commit offsets for them. Version 3 carries
member id and generation, and the broker refuses an old generation. This module adds that version.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import CoordinationType
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.producer.sender import TxnOffsetCommitHandler
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import TopicPartition
from aiokafka.util import commit_structure_validate

__all__ = ["FencedTransactions", "stable_offsets"]

_UNSTABLE = 88
"""UNSTABLE_OFFSET_COMMIT: a transaction that writes this offset is undecided."""
_UNSTABLE_RETRY_S = 0.05

_FENCED = {
    IllegalGenerationError.errno: "illegal generation",
    UnknownMemberIdError.errno: "unknown member",
    # aiokafka has no class for it.
    82: "fenced instance id",
}


class _Response(Response):  # type: ignore[misc]  # aiokafka is untyped here
    API_KEY = 28
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "errors",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partition_errors",
                    CompactArray(
                        ("partition", Int32), ("error_code", Int16), ("tags", TaggedFields)
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _RequestV3(RequestStruct):  # type: ignore[misc]  # likewise
    FLEXIBLE_VERSION = True
    API_KEY = 28
    API_VERSION = 3
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")),
        ("group_id", CompactString("utf-8")),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", CompactString("utf-8")),
        ("group_instance_id", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _CommitRequest(Request[_RequestV3]):  # type: ignore[misc]  # likewise
    API_KEY = 28

    def __init__(self, *fields: Any) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[_RequestV3]) -> _RequestV3:
        return request_struct_class(*self._fields)


class _OffsetsResponse(Response):  # type: ignore[misc]  # likewise
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _OffsetsRequestV7(RequestStruct):  # type: ignore[misc]  # likewise
    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = _OffsetsResponse
    SCHEMA = Schema(
        ("group_id", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class _OffsetsRequest(Request[_OffsetsRequestV7]):  # type: ignore[misc]  # likewise
    API_KEY = 9

    def __init__(self, *fields: Any) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[_OffsetsRequestV7]) -> _OffsetsRequestV7:
        return request_struct_class(*self._fields)


class _CommitHandler(TxnOffsetCommitHandler):  # type: ignore[misc]  # aiokafka is untyped here
    """Sends the commit with the member's identity, and fails where the broker fences it."""

    def __init__(
        self,
        sender: Any,
        offsets: Mapping[TopicPartition, Any],
        group_id: str,
        identity: tuple[int, str, str | None],
    ) -> None:
        super().__init__(sender, offsets, group_id)
        self._identity = identity

    def create_request(self) -> Any:
        transaction = self._sender._txn_manager  # noqa: SLF001
        topics: dict[str, list[Any]] = defaultdict(list)
        for tp, offset in sorted(self._offsets.items()):
            topics[tp.topic].append((tp.partition, offset.offset, -1, offset.metadata, {}))
        return _CommitRequest(
            transaction.transactional_id,
            self._group_id,
            transaction.producer_id,
            transaction.producer_epoch,
            *self._identity,
            [(topic, partitions, {}) for topic, partitions in topics.items()],
            {},
        )

    def handle_response(self, response: Any) -> Any:
        plain = []
        for topic, partitions, _tags in response.errors:
            for partition, code, _tags in partitions:
                if code in _FENCED:
                    # Not error_transaction(): it forgets the partitions written to, so that the
                    # abort that follows would never reach the broker.
                    pending = self._sender._txn_manager._pending_txn_offsets  # noqa: SLF001
                    _, _, future = pending.popleft()
                    future.set_exception(
                        CommitFailedError(
                            f"the group has moved on without this worker ({_FENCED[code]})"
                        )
                    )
                    return None
                plain.append((topic, [(partition, code)]))
        response.errors = plain
        return super().handle_response(response)


async def stable_offsets(
    consumer: AIOKafkaConsumer, group_id: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int | None]:
    """The committed offset of each partition, None where there is none, once none is undecided.

    A worker that was frozen after it had sent its offsets, and before it ended its transaction, may
    still commit them: whoever takes its partitions over must wait for that, or for the broker to
    abort the transaction. aiokafka asks without waiting (OffsetFetch version 3).

    Raises:
        aiokafka.errors.KafkaError: the coordinator cannot say; ask again.
    """
    asked: dict[str, list[int]] = defaultdict(list)
    for tp in partitions:
        asked[tp.topic].append(tp.partition)
    request = _OffsetsRequest(
        group_id, [(topic, numbers, {}) for topic, numbers in asked.items()], True, {}
    )
    while True:
        response = await consumer._coordinator._send_req(request)  # noqa: SLF001
        codes = {response.error_code} | {
            code for _, several, _ in response.topics for *_, code, _ in several
        }
        if codes == {0}:
            return {
                TopicPartition(topic, number): offset if offset >= 0 else None
                for topic, several, _ in response.topics
                for number, offset, *_ in several
            }
        if codes - {0, _UNSTABLE}:
            raise for_code(max(codes - {0, _UNSTABLE}))("the committed offsets cannot be read")
        await asyncio.sleep(_UNSTABLE_RETRY_S)


class FencedTransactions:
    """Gives a producer's transactions the identity of a consumer.

    Args:
        producer: with a transactional id.
        consumer: whose offsets are committed.
        group_id: of the consumer.
        instance_id: of the consumer, where it is a static member.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        consumer: AIOKafkaConsumer,
        group_id: str,
        instance_id: str | None,
    ) -> None:
        self._producer = producer
        self._consumer = consumer
        self._group_id = group_id
        self._instance_id = instance_id
        self._identity: tuple[int, str, str | None] = (-1, "", instance_id)
        sender = producer._sender  # noqa: SLF001 - aiokafka has no public seam here

        async def commit(offsets: Mapping[TopicPartition, Any], group: str) -> None:
            if not offsets:
                return
            node = await sender._find_coordinator(CoordinationType.GROUP, group)  # noqa: SLF001
            await _CommitHandler(sender, offsets, group, self._identity).do(node)

        sender._do_txn_offset_commit = commit  # noqa: SLF001

    async def send_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Add consumed offsets (the next to read) to the transaction.

        Raises:
            aiokafka.errors.CommitFailedError: this member is not in the group's generation any
                more; abort, and take up again what the group gives.
        """
        coordinator = self._consumer._coordinator  # noqa: SLF001 - the only place that knows them
        if coordinator.generation < 0:
            # Its heartbeat was told so before us. The broker lets commits without a member id and
            # generation through, for the sake of older clients.
            raise CommitFailedError("the group has moved on without this worker (no member)")
        # Fixed here: it may be told while the request is under way.
        self._identity = (coordinator.generation, coordinator.member_id, self._instance_id)
        await self._producer.send_offsets_to_transaction(
            commit_structure_validate(dict(offsets)), self._group_id
        )
