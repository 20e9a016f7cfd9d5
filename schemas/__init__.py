"""The language of Leat: events, topics, API models and the names of errors. Pydantic only, no I/O."""
