"""A Kafka that takes its time: a proxy in front of a broker that holds some requests back."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from driftgate.broker import EmbeddedKafka

__all__ = ["DELIVERY", "SlowKafka"]

DELIVERY = frozenset({0, 24, 25, 26, 28})
"""What a delivery is made of (Kafka's api keys): Produce, AddPartitionsToTxn, AddOffsetsToTxn,
EndTxn, TxnOffsetCommit. Heartbeats and fetches are not among them."""


class SlowKafka:
    """A broker of one's own that is reached through the proxy alone.

    Requests of a delivery wait ``delay_s`` each, which may be changed at any time.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        # What clients are told to connect to, whoever they asked first.
        advertised = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}"}
        self.broker = EmbeddedKafka(properties=advertised)
        await asyncio.to_thread(self.broker.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        await asyncio.to_thread(self.broker.stop)

    @property
    def bootstrap_servers(self) -> str:
        """The proxy's address."""
        return f"127.0.0.1:{self.port}"

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            broker, forth = await asyncio.open_connection("127.0.0.1", self.broker.port)
            ways = {
                asyncio.create_task(self._requests(client, forth)),
                asyncio.create_task(_answers(broker, back)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # Either side has gone, and the other one goes with it.
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                for side in (back, forth):
                    side.close()
                    with contextlib.suppress(OSError):
                        await side.wait_closed()

    async def _requests(self, client: asyncio.StreamReader, forth: asyncio.StreamWriter) -> None:
        while True:
            size = await client.readexactly(4)
            request = await client.readexactly(int.from_bytes(size, "big"))
            if int.from_bytes(request[:2], "big") in DELIVERY:
                await asyncio.sleep(self.delay_s)
            forth.write(size + request)
            await forth.drain()


async def _answers(broker: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
    while data := await broker.read(2**16):
        back.write(data)
        await back.drain()
