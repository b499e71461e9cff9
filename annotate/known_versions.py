"""Which versions of responses a ledger holds already, in 16 bytes each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_RECENT = 1 << 16


class KnownVersions:
    """A set of 16-byte digests: sorted in one array, the newest in a Python set beside it.

    16 bytes a digest, and about 100 for each of the at most 65,536 (or an eighth) that came last;
    looking one up takes logarithmic time, adding one constant time on average.
    """

    def __init__(self) -> None:
        self._sorted: npt.NDArray[np.bytes_] = np.empty(0, "S16")
        self._recent: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, digest: bytes) -> bool:
        if digest in self._recent:
            return True
        wanted = np.array(digest, "S16")
        at = int(np.searchsorted(self._sorted, wanted))
        return at < len(self._sorted) and bool(self._sorted[at] == wanted)

    def add(self, digest: bytes) -> None:
        """Remember a digest; the caller has looked whether it is there."""
        self._recent.add(digest)
        if len(self._recent) > max(_RECENT, len(self._sorted) // 8):
            recent = np.array(list(self._recent), "S16")
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent = set()
