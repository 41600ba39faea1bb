"""The whole contract suite, joined from its parts."""

import pytest

from ci_common.testing.api_keys import APIKeyContract
from ci_common.testing.bad_input import BadInputContract
from ci_common.testing.completion import CompletionContract
from ci_common.testing.concurrency import ConcurrencyContract
from ci_common.testing.creation import CreationContract
from ci_common.testing.events import AppendingContract, ReadingContract
from ci_common.testing.following import FollowingContract
from ci_common.testing.life import LifeContract
from ci_common.testing.listing import IsolationContract, ListingContract
from ci_common.testing.status import CancellationContract, StatusContract
from ci_common.testing.texts import TextContract
from ci_common.testing.times import TimeContract, TimeOrderContract
from ci_common.testing.transition_table import TransitionContract
from ci_common.testing.users import UserContract


class JobRepositoryContract(
    LifeContract,
    UserContract,
    APIKeyContract,
    CreationContract,
    ListingContract,
    IsolationContract,
    StatusContract,
    TransitionContract,
    CompletionContract,
    CancellationContract,
    AppendingContract,
    ReadingContract,
    FollowingContract,
    TextContract,
    TimeContract,
    TimeOrderContract,
    BadInputContract,
    ConcurrencyContract,
):
    """All behaviour that callers of a repository rely on; subclass it and give the fixture `repository`."""

    pytestmark = pytest.mark.asyncio
