"""Queries for jobs, and rows of the database as records."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from service.database import JOBS, LABELS
from service.records import Job, JobState


def page_query(
    limit: int,
    before: tuple[int, str] | None,
    state: JobState | None,
    labels: Iterable[tuple[str, str | None]],
    owner: str | None,
) -> sa.Select[tuple[object, ...]]:
    """Up to `limit` jobs, newest first; arguments as those of `JobStore.page`."""
    query = sa.select(JOBS).order_by(JOBS.c.created_us.desc(), JOBS.c.id.desc()).limit(limit)
    if before is not None:
        created, job_id = before
        query = query.where(
            sa.or_(
                JOBS.c.created_us < created,
                sa.and_(JOBS.c.created_us == created, JOBS.c.id < job_id),
            )
        )
    if state is not None:
        query = query.where(JOBS.c.state == state)
    if owner is not None:
        query = query.where(JOBS.c.owner == owner)
    for key, value in labels:
        pairs = sa.select(LABELS.c.job_id).where(LABELS.c.key == key)
        if value is not None:
            pairs = pairs.where(LABELS.c.value == value)
        query = query.where(JOBS.c.id.in_(pairs))
    return query


def job_of(row: sa.RowMapping) -> Job:
    """The record that a row of `jobs` holds."""
    return Job.model_validate({name: row[name] for name in Job.model_fields})


def metadata_rows(job: Job) -> list[dict[str, str]]:
    """Rows of `job_labels` for a job's metadata."""
    return [{"job_id": job.id, "key": key, "value": value} for key, value in job.metadata.items()]
