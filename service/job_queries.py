"""Rows of the database as records, and the buckets that durations are counted in."""

from __future__ import annotations

from bisect import bisect_left

import sqlalchemy as sa

from service.records import Job

DURATION_BUCKETS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0)
"""Upper bounds, in seconds; one more bucket holds what took longer."""

NEVER_RAN = -1
"""Bucket of jobs that ended before they began."""


def bucket_of(seconds: float | None) -> int:
    """Index of the bucket that a duration falls into."""
    return NEVER_RAN if seconds is None else bisect_left(DURATION_BUCKETS, seconds)


def job_of(row: sa.RowMapping) -> Job:
    """The record that a row of `jobs` holds."""
    return Job.model_validate({name: row[name] for name in Job.model_fields})


def metadata_rows(job: Job) -> list[dict[str, str]]:
    """Rows of `job_labels` for a job's metadata."""
    return [{"job_id": job.id, "key": key, "value": value} for key, value in job.metadata.items()]
