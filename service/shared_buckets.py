"""One bucket a key for all service processes, kept in the broker's Redis.

A request never waits for it: each process decides by its own buckets, tells Redis ten times a second what was
taken from them, and takes over what is left for all. What two processes gave together beyond the rate in such
a tenth is a debt that the next tokens pay. Without Redis each process goes on by itself.
"""

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.buckets import Buckets

PERIOD_S = 0.1
TIMEOUT_S = 1.0
#: After Redis did not answer.
AWAY_S = 5.0

PREFIX = "modelyard:rate:"

#: KEYS: the bucket. ARGV: tokens a second, the most it holds, how many were taken. Gives what is left; a debt
#: is never more than a whole bucket, so that nobody waits for longer than it takes to fill one twice.
SCRIPT = """
local per_s, burst, taken = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local tokens, at = unpack(redis.call('HMGET', KEYS[1], 'tokens', 'at'))
local age = math.max(0, now - (tonumber(at) or now))
local left = math.min(burst, (tonumber(tokens) or burst) + age * per_s)
left = math.max(-burst, left - taken)
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', left), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(2000 * burst / per_s) + 1000)
return string.format('%.6f', left)
"""

log = structlog.stdlib.get_logger()


class SharedBuckets:
    def __init__(self, buckets: Buckets, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets, self._clock = buckets, clock
        self._redis = Redis.from_url(
            redis_url(url), socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, max_connections=1
        )
        self._away_until = 0.0
        self._is_away = False

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await asyncio.sleep(PERIOD_S)
                await self.exchange()
        finally:
            await self._redis.aclose()

    async def exchange(self) -> None:
        """What was taken here since the last time, for what is left for all."""
        if self._clock() < self._away_until:
            return
        taken = self._buckets.collect()
        if not taken:
            return
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for name, count in taken.items():
                pipeline.eval(SCRIPT, 1, PREFIX + name, self._buckets.per_s, self._buckets.burst, count)
            left = await pipeline.execute()
        except (RedisError, OSError) as error:
            if not self._is_away:
                log.warning("rates_not_shared", reason=str(error), hint="each process limits by itself")
            self._is_away = True
            self._away_until = self._clock() + AWAY_S
            return
        self._is_away = False
        for name, tokens in zip(taken, left, strict=True):
            self._buckets.correct(name, float(tokens))


def redis_url(url: str) -> str:
    """As Redis writes a unix socket, where it is written as kombu does."""
    parts = urlsplit(url)
    return parts._replace(scheme="unix").geturl() if parts.scheme == "redis+socket" else url
