"""One file per consumer group; ``delivery`` decides the fate of records; ``wiring`` and ``app`` make them run."""
