"""How commands show things: JSON for scripts, colours for people, plain lines for pipes."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# Wide enough that no cell of a table is cut when it goes into a pipe.
_PIPE_COLUMNS = 240


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=str)
    sys.stdout.write("\n")


def console() -> Console:
    """Colours where standard output is a terminal; never wraps what goes into a pipe."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(soft_wrap=True, width=_PIPE_COLUMNS, highlight=False)


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """A table without frames; every cell is text, never markup."""
    titles = tuple(columns)
    shown = Table(*titles, box=None, pad_edge=False, header_style="bold", show_edge=False, show_header=any(titles))
    for row in rows:
        shown.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    return shown


def source_line(passage: Mapping[str, Any]) -> str:
    """Where a passage stands: ``[1] notes/plan.md · Goals › This year · characters 120-340 · page 2``."""
    parts = [passage["document_id"]]
    if passage.get("heading_path"):
        parts.append(" › ".join(passage["heading_path"]))
    parts.append(f"characters {passage['start']}-{passage['end']}")
    if passage.get("page"):
        parts.append(f"page {passage['page']}")
    return f"[{passage['citation']}] " + " · ".join(parts)


def milliseconds(value: float | None) -> str:
    """A time for people: ``12 ms``, ``1.5 s``, or a dash."""
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"
