"""One file per consumer group; ``delivery`` decides the fate of records; ``app`` wires."""
