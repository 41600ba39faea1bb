"""The contract of `ci_common.repository` as tests, for every implementation of it.

Whoever writes a repository gets them all by a subclass that gives one fixture, an open repository without any data:

    import pytest
    import pytest_asyncio
    from ci_common.testing import JobRepositoryContract

    class TestPostgresJobRepository(JobRepositoryContract):
        @pytest_asyncio.fixture
        async def repository(self):
            async with PostgresJobRepository("postgresql://localhost/test") as repository:
                await repository.clear()
                yield repository

Tests run with pytest and pytest-asyncio, in any of its modes. They may close the repository and never open it again.
A repository that takes smaller or bigger events than usual says so by a class attribute, `max_event_bytes`.
"""

import pkgutil

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

# Only what is imported after that line explains its failed assertions.
from ci_common.testing.contract import JobRepositoryContract  # noqa: E402

__all__ = ["JobRepositoryContract"]
