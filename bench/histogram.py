"""Latencies in buckets: cheap to add to, small to send, mergeable. Pure."""

from collections.abc import Mapping

# 2**7 steps in each power of two: a bucket is never wider than 0.8 % of its value.
PRECISION_BITS = 8


class Histogram:
    """Counts by bucket; a bucket is named by its lower edge, so that below 256 each value has its own."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts = dict(counts or {})

    def add(self, value: int) -> None:
        shift = value.bit_length() - PRECISION_BITS
        if shift > 0:
            value = value >> shift << shift
        self.counts[value] = self.counts.get(value, 0) + 1

    def merge(self, other: "Histogram") -> None:
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def quantile(self, share: float) -> int:
        """The lower edge of the bucket that holds this share of all values (0.5: the median); 0 when empty."""
        rank = share * self.total
        seen = 0
        bucket = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                break
        return bucket
