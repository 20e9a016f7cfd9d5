"""Fixtures that every test may use."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.services import Services, running_services


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """Real Kafka, PostgreSQL and Redis, started once per run; each test makes its own prefix, database and keys."""
    async with running_services(tmp_path_factory.mktemp("services")) as running:
        yield running
