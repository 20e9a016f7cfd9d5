"""Folders as sources of documents: looking at them, publishing what changed, watching."""
