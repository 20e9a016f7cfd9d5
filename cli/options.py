"""Options that every command has."""

from pathlib import Path
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="The data directory (default: LEAT_DATA_DIR, else .leat/data).")
]
