"""Where a key lives: the partition that our producers, and everybody with ``murmur2``, choose for it."""

from aiokafka.partitioner import murmur2


def home_partition(key: bytes, partitions: int) -> int:
    """The partition of a key among ``partitions``."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
