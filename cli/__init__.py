"""``leat``: one file per command group."""
