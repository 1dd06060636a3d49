"""`python -m tests.sending URL`: a process that sends what a database holds, until it is killed."""

import asyncio
import sys

from tests.outbox import opened


async def send(database_url: str) -> None:
    async with opened(database_url, timeout_s=1) as office:
        await office.sender.run()


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1]))
