"""A transactional producer that commits offsets as a member of its consumer group (KIP-447).

aiokafka 0.14 sends version 0 of TxnOffsetCommit, which names the group only: a worker that lost its
partitions in a rebalance without noticing could still commit offsets for them. Version 3 carries
member id and generation, and the broker refuses an old generation. This module adds that version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import CoordinationType
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    UnknownMemberIdError,
)
from aiokafka.producer.sender import TxnOffsetCommitHandler
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
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

__all__ = ["FencedTransactions"]

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


class _CommitHandler(TxnOffsetCommitHandler):  # type: ignore[misc]  # aiokafka is untyped here
    """Sends the commit with the member's identity, and fails where the broker fences it."""

    def __init__(
        self,
        sender: Any,
        offsets: Mapping[TopicPartition, Any],
        group_id: str,
        consumer: AIOKafkaConsumer,
        instance_id: str | None,
    ) -> None:
        super().__init__(sender, offsets, group_id)
        coordinator = consumer._coordinator  # noqa: SLF001 - the only place that knows them
        self._identity = (coordinator.generation, coordinator.member_id, instance_id)

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
        self._group_id = group_id
        sender = producer._sender  # noqa: SLF001 - aiokafka has no public seam here

        async def commit(offsets: Mapping[TopicPartition, Any], group: str) -> None:
            if not offsets:
                return
            node = await sender._find_coordinator(CoordinationType.GROUP, group)  # noqa: SLF001
            await _CommitHandler(sender, offsets, group, consumer, instance_id).do(node)

        sender._do_txn_offset_commit = commit  # noqa: SLF001

    async def send_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Add consumed offsets (the next to read) to the transaction.

        Raises:
            aiokafka.errors.CommitFailedError: this member is not in the group's generation any
                more; abort, and take up again what the group gives.
        """
        await self._producer.send_offsets_to_transaction(
            commit_structure_validate(dict(offsets)), self._group_id
        )
