"""A proxy that delays each request, to check that budgets detect a slow gateway.

    python3 loadtests/slowed.py --to 127.0.0.1:8000 --listen 8099 --milliseconds 20

Standard library only; no product code is slowed. Ctrl-C ends it.
"""

import argparse
import asyncio
import contextlib


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(64 * 1024):
            if delay:
                await asyncio.sleep(delay)
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(host: str, port: int, listen: int, delay: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(pump(reader, upstream_writer, delay), pump(upstream_reader, writer, 0))

    server = await asyncio.start_server(accept, "127.0.0.1", listen)
    print(f"http://127.0.0.1:{listen} forwards to {host}:{port} with a delay of {delay * 1e3:.0f} ms", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--listen", type=int, required=True, metavar="PORT")
    parser.add_argument("--milliseconds", type=float, default=20)
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(host, int(port), options.listen, options.milliseconds / 1e3))


if __name__ == "__main__":
    main()
