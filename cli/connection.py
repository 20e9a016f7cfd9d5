"""Where Leat runs: the run file of a data directory, or addresses from the settings."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.exits import UNREACHABLE, USAGE, Refused
from infra.settings import Settings, load


@dataclass(frozen=True, slots=True)
class Connection:
    """Addresses and the token of a running Leat."""

    api_url: str
    token: str | None
    settings: Settings
    """With the addresses of the running services filled in; for commands that read the log or the database."""
    pids: dict[str, int]


def connect(data: Path | None = None) -> Connection:
    """The Leat of a data directory; without ``--data``, one that ``LEAT_API_URL`` names comes first.

    Raises:
        Refused: nothing is running there (exit code 3).
    """
    settings = load(data_dir=data)
    token = settings.api_token.get_secret_value() if settings.api_token else None
    if data is None and settings.api_url:
        # Commands that read the log or the database say themselves which address is missing.
        return Connection(settings.api_url.rstrip("/"), token, settings, {})
    run = _run_file(settings.data_dir)
    found = load(
        data_dir=settings.data_dir.absolute(),
        kafka_bootstrap_servers=run["kafka_bootstrap_servers"],
        postgres_dsn=run["postgres_dsn"],
        redis_url=run["redis_url"],
    )
    return Connection(run["api_url"].rstrip("/"), run.get("token") or token, found, dict(run.get("pids", {})))


def _run_file(directory: Path) -> dict[str, Any]:
    path = directory / "run.json"
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise Refused(
            f"Leat is not running here (no {path}): start it with `leat up`, or give --data or LEAT_API_URL",
            UNREACHABLE,
        ) from error
    except PermissionError as error:
        raise Refused(f"{path} belongs to another user: ask as that user, or give LEAT_API_URL", UNREACHABLE) from error
    except (ValueError, OSError) as error:
        raise Refused(f"{path} cannot be read: {error}", USAGE) from error
