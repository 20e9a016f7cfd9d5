"""Stores in PostgreSQL, through asyncpg. Each module holds one store and its SQL."""
