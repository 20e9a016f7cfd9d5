"""Fixtures of integration tests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.services import Services
from tests.site import Site, a_site


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with a_site(services, tmp_path_factory.mktemp("site")) as site:
        yield site
