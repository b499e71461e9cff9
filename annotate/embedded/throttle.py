"""Counting failures and making the next try wait: memory of bounded size, nothing else."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

FORGIVEN_AFTER = 15 * 60
"""Seconds without a failure after which they no longer count."""

REMEMBERED = 10_000
"""Keys of one kind; those that failed least recently are forgotten first."""


class Throttle:
    """Lets a number of failures pass; each further one doubles the wait, from one second on.

    Args:
        free: failures without a wait.
        longest: seconds that a wait lasts at most.
        now: the clock, in seconds.
    """

    def __init__(
        self, free: int, longest: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._free = free
        self._longest = longest
        self._now = now
        self._failures: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def wait(self, key: Hashable) -> float:
        """Seconds until this key may try again; 0 if it may now."""
        count, last = self._failures.get(key, (0, 0.0))
        over = count - self._free
        if over < 0 or self._now() - last > FORGIVEN_AFTER:
            return 0.0
        delay = min(self._longest, 2.0 ** min(over, 30))
        return max(0.0, last + delay - self._now())

    def failed(self, key: Hashable) -> None:
        """One more failure, now."""
        count, last = self._failures.pop(key, (0, 0.0))
        if self._now() - last > FORGIVEN_AFTER:
            count = 0
        self._failures[key] = (count + 1, self._now())
        if len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def withdraw(self, key: Hashable) -> None:
        """One failure less: it was none."""
        if key in self._failures:
            count, last = self._failures[key]
            self._failures[key] = (count - 1, last)

    def forgive(self, key: Hashable) -> None:
        """Start anew with this key."""
        self._failures.pop(key, None)


class Known:
    """The last so many keys that were seen."""

    def __init__(self) -> None:
        self._keys: OrderedDict[Hashable, None] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._keys

    def add(self, key: Hashable) -> None:
        """See a key."""
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > REMEMBERED:
            self._keys.popitem(last=False)


def whole_seconds(wait: float) -> int:
    """A wait as Retry-After says it: rounded up, and at least one."""
    return max(1, math.ceil(wait))
