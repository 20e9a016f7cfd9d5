"""``DATA/run.json``: where a running Leat is found. It exists exactly while it serves."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "run.json"


@dataclass(frozen=True, slots=True)
class RunFile:
    """Addresses, the administrator's token and process ids; the keys are promised in the interface."""

    api_url: str
    kafka_bootstrap_servers: str
    postgres_dsn: str
    redis_url: str
    token: str
    pids: Mapping[str, int]
    started_at: str
    version: str

    def write(self, directory: Path) -> None:
        """Replace the file in one step; only its owner may read it."""
        temporary = directory / f".{NAME}.new"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=2)
            file.write("\n")
        temporary.replace(directory / NAME)


def remove(directory: Path) -> None:
    """It does not serve any more."""
    (directory / NAME).unlink(missing_ok=True)
