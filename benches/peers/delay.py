#!/usr/bin/env python3
"""A TCP proxy that puts a server far away: delay.py TARGET_PORT ROUND_TRIP_MS

Half of the round trip is added in each direction, and a whole one to each new connection, for its handshake. Nothing
else is limited. It prints its port; each line on its standard input is answered by a line of JSON with the traffic
since the line before; it ends when its input does.
"""

import asyncio
import json
import sys
import threading

PIECE_BYTES = 256 << 10
# What is under way in one direction of a connection; more than a wide network would have.
QUEUE_PIECES = 64
METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")


class Traffic:
    def __init__(self):
        self.connections = self.requests = self.sent = self.received = 0


async def serve(target, round_trip):
    traffic = Traffic()
    loop = asyncio.get_running_loop()

    async def connection(reader, writer):
        traffic.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, far_writer, round_trip * 1.5, True), carry(far_reader, writer, 0, False))

    async def carry(reader, writer, first, up):
        """Carries one direction; what is read is written half a round trip later, the first piece perhaps more."""
        queue = asyncio.Queue(QUEUE_PIECES)
        opened = loop.time()

        async def deliver():
            while (piece := await queue.get()) is not None:
                due, data = piece
                await asyncio.sleep(max(0, due - loop.time()))
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            while data := await reader.read(PIECE_BYTES):
                if up:
                    traffic.sent += len(data)
                    traffic.requests += data.startswith(METHODS)
                else:
                    traffic.received += len(data)
                due = max(loop.time() + round_trip / 2, opened + first)
                await queue.put((due, data))
            await queue.put(None)
            await delivering
        except OSError:
            delivering.cancel()
        finally:
            writer.close()

    def answer():
        nonlocal traffic
        report, traffic = vars(traffic), Traffic()
        print(json.dumps(report), flush=True)

    server = await asyncio.start_server(connection, "127.0.0.1", 0, limit=PIECE_BYTES, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()

    def listen():
        for _ in sys.stdin:
            loop.call_soon_threadsafe(answer)
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=listen, daemon=True).start()
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
