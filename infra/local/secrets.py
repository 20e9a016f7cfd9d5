"""Secrets of local services: made once, kept in files that only their owner reads."""

import os
import secrets
from pathlib import Path


def secret(path: Path) -> str:
    """The secret in the file; a new one when there is no file yet."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = secrets.token_urlsafe(24)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(made)
        return made
