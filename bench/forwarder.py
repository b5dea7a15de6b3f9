"""A forwarder of TCP that takes the next node for every connection, as a load balancer that checks nothing does.

A node that refuses is passed over; one that is frozen is not, for its kernel accepts. It runs as a thread of
the benchmark, and moves some hundred MiB a second: it is for seeing whether, not how fast.
"""

import asyncio
import contextlib
import threading

PIECE = 256 << 10


class Forwarder:
    """`with Forwarder(ports) as forwarder:` listens at `forwarder.port`."""

    def __init__(self, ports):
        self.ports, self.next = list(ports), 0
        self.taken = dict.fromkeys(self.ports, 0)  # connections to each
        self.open = set()
        self.port = None
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        if not self.ready.wait(10):
            raise RuntimeError("the forwarder did not start")
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)

    def cut(self):
        """Breaks all connections off, so that clients make new ones; forgets how many there were."""
        done = threading.Event()

        def work():
            for writer in self.open:
                writer.transport.abort()
            self.taken = dict.fromkeys(self.ports, 0)
            done.set()

        self.loop.call_soon_threadsafe(work)
        done.wait(10)

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.serve())

    async def serve(self):
        self.stop = asyncio.Event()
        server = await asyncio.start_server(self.converse, "127.0.0.1", 0, limit=PIECE)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def connect(self):
        for _ in self.ports:
            port = self.ports[self.next % len(self.ports)]
            self.next += 1
            with contextlib.suppress(OSError):
                made = await asyncio.open_connection("127.0.0.1", port, limit=PIECE)
                self.taken[port] += 1
                return made
        return None

    async def converse(self, reader, writer):
        there = await self.connect()
        if there:
            self.open.add(writer)
            ends = [asyncio.ensure_future(pump(reader, there[1])), asyncio.ensure_future(pump(there[0], writer))]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in ends:
                    task.cancel()
                there[1].close()
                self.open.discard(writer)
        writer.close()


async def pump(reader, writer):
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
