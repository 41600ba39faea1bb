"""What is copied through the contract: users and API keys of any store, and jobs of another kind of store.

Another store has no entries to bring, so a job is made anew of what its readers get: its fields and its events.
"""

from dataclasses import replace
from hashlib import blake2b

from ci_common.errors import JobAlreadyExistsError, RepositoryError
from ci_common.models import Job, JobStatus
from ci_common.repository import JobRepository
from ci_eventstore.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from ci_eventstore.history.copying import DIGEST_BYTES, CopyReport, add_digest

PAGE_JOBS = 100


async def copy_jobs(source: JobRepository, target: JobRepository, report: CopyReport) -> None:
    """Copy the jobs of a store of another kind, and compare each; StoreUnavailableError, OutcomeUnknownError.

    A job is held in memory whole, and created in one step. One that is there stays, and is only compared.
    """
    before = None
    while page := await source.page_jobs(limit=PAGE_JOBS, before=before):
        for summary in page:
            try:
                await _copy_job(source, target, summary.id, report)
            except RepositoryError as error:
                _leave(report, f"job {summary.id}", error)
        before = page[-1].id


async def _copy_job(source: JobRepository, target: JobRepository, job_id: str, report: CopyReport) -> None:
    job = await source.get_job(job_id)
    if job is None:
        return
    if job.status is JobStatus.RUNNING:
        raise StoreError("it is running")
    try:
        await target.create_job(job)
        report.copied += 1
    except JobAlreadyExistsError:
        report.already += 1
    found = await target.get_job(job_id)
    report.compared += 1
    report.source_digest = add_digest(report.source_digest, _digest(job))
    report.target_digest = add_digest(report.target_digest, _digest(found))
    if found != job:
        report.different.append(job_id)


def _digest(job: Job | None) -> bytes:
    return blake2b(repr(job).encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES).digest()


async def copy_accounts(source: JobRepository, target: JobRepository, report: CopyReport) -> None:
    """Copy users and API keys, of which there are only hashes; what is there stays, but follows if it was deactivated.

    Users and keys that differ otherwise are named; StoreUnavailableError.
    """
    for user in await source.list_users():
        try:
            known = await target.get_user(user.id)
            if known is None:
                await target.create_user(user)
            elif replace(known, is_active=user.is_active) != user:
                raise StoreError("the target has it otherwise")
            elif known != user:
                await target.update_user_active(user.id, user.is_active)
        except RepositoryError as error:
            _leave(report, f"user {user.id}", error)
    known_keys = {key.id: key for key in await target.list_api_keys()}
    for key in await source.list_api_keys():
        try:
            there = known_keys.get(key.id)
            if there is None:
                await target.create_api_key(key)
            elif (there.key_hash, there.user_id) != (key.key_hash, key.user_id):
                raise StoreError("the target has it otherwise")
            elif there.is_active and not key.is_active:
                await target.revoke_api_key(key.id)
        except RepositoryError as error:
            _leave(report, f"API key {key.id}", error)


def _leave(report: CopyReport, what: str, error: RepositoryError) -> None:
    if isinstance(error, StoreUnavailableError | OutcomeUnknownError):
        raise error
    report.left[what] = str(error)
