"""When a message is tried again: the schedule of the Standard Webhooks specification, with jitter."""

import random

#: Waits after the first, second, … failed try. After the last of them the message is a dead letter.
WAITS_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)

#: So long at most does a receiver's `Retry-After` put off the next try.
MAX_RETRY_AFTER_S = 86400.0


def wait_s(attempts: int, retry_after_s: float | None, waits_s: tuple[float, ...] = WAITS_S) -> float | None:
    """Before the next try, after so many that failed; None where there is none. A fifth more or less, so that
    what failed together does not come back together; never before the receiver wants it."""
    if attempts > len(waits_s):
        return None
    asked_s = min(retry_after_s or 0.0, MAX_RETRY_AFTER_S)
    return max(waits_s[attempts - 1] * random.uniform(0.8, 1.2), asked_s)
