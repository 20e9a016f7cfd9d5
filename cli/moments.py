"""Times as people type them: ``3d``, ``90m``, ``2026-01-31``, ``2026-01-31T12:00``; or a position, left as it is."""

import re
from datetime import UTC, datetime, timedelta

_AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, *, now: datetime | None = None) -> str:
    """What the API understands: a time with its zone (that of this machine, where none is said), or the text itself."""
    now = now or datetime.now(UTC)
    if ago := _AGO.fullmatch(text.strip()):
        return (now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (found if found.tzinfo else found.astimezone()).isoformat()
