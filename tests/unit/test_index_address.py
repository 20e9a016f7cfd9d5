"""Where the index process listens."""

import os
from pathlib import Path

from infra.index.address import MAX_SOCKET_PATH_BYTES, index_socket
from infra.settings import Settings


def test_the_socket_is_in_the_data_directory(tmp_path: Path) -> None:
    short = Path("/srv/leat")
    assert index_socket(Settings(data_dir=short)) == short / "index" / "index.sock"


def test_a_path_too_long_for_a_socket_becomes_a_short_one_that_both_sides_find() -> None:
    settings = Settings(data_dir=Path("/srv") / ("long-name-" * 20))
    socket = index_socket(settings)
    assert len(os.fsencode(socket)) <= MAX_SOCKET_PATH_BYTES
    assert socket == index_socket(Settings(data_dir=settings.data_dir))
    assert socket != index_socket(Settings(data_dir=settings.data_dir / "other"))


def test_a_configured_socket_is_used() -> None:
    assert index_socket(Settings(index_socket=Path("/run/leat/index.sock"))) == Path("/run/leat/index.sock")
