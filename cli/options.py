"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="The data directory (default: LEAT_DATA_DIR, else .leat/data).")
]
AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", help="What the documents said then: 3d, 2h, 2026-01-31, a time, or a position."),
]
