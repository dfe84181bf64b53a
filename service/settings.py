"""Settings of the server, read from environment variables of the same names.

Those that the library reads (GPU, threads, training runtime) are checked here and reach it
through the environment that every child inherits. Every setting is described beside its field and
has a row in `docs/settings.md`; a test compares the two.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_CGROUP_MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")
_SHARE_OF_MEMORY_FOR_JOBS = 0.8

_CORES = r"^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*$"

Bytes = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """What an operator may set; the defaults suit one machine and a trusted local user."""

    model_config = SettingsConfigDict(
        use_attribute_docstrings=True, frozen=True, extra="ignore", case_sensitive=False
    )

    role: Annotated[str, Field(pattern="^(all|api|worker)$")] = "all"
    """What this process is: `api` answers requests, `worker` runs jobs, `all` starts one of each
    and keeps them running."""
    host: str = "127.0.0.1"
    """Address the API binds to. Other addresses than loopback take an API key, made beforehand,
    or `ALLOW_UNAUTHENTICATED`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """TCP port the API listens on; 0 takes a free one, which the log names."""
    data_dir: Path = Path("data")
    """Folder of models, bundles and results. One server with the role `all` may use it, or any
    number with the other roles, on storage that they share."""
    database_url: Annotated[str, Field(pattern="^(sqlite:///|postgresql://).")] | None = None
    """Database of jobs: `postgresql://user@host/name`, or `sqlite:///` and a path for one machine.
    When not set: the file `jobs.sqlite` in `DATA_DIR`."""
    storage_url: Annotated[str, Field(pattern="^s3://.")] | None = None
    """Object storage that keeps models, bundles, checkpoints and results: `s3://bucket/prefix`,
    with credentials and endpoint from the usual `AWS_*` variables. `DATA_DIR` is then each
    machine's own cache. When not set: `DATA_DIR` keeps everything."""
    worker_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,62}$")] | None = None
    """Name of this worker: unique, and the same after a restart. When not set: the host's name."""
    allow_unauthenticated: bool = False
    """Whether strangers may use the server while no API key was ever made: only where something
    else keeps them away, such as a port published on loopback alone."""
    max_requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Requests that an API key may send in a minute, unless it has a limit of its own; counted by
    each API process. No limit when not set."""
    max_jobs_per_key: Annotated[int, Field(ge=1)] | None = None
    """Jobs of one owner of API keys that may be unfinished at a time, unless the key has a limit
    of its own. No limit when not set."""
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    """Least severe message that is logged: `debug`, `info`, `warning` or `error`."""
    log_format: Annotated[str, Field(pattern="^(text|json)$")] = "text"
    """Form of the log: `text` for people, or `json`, one object a line."""

    traces_url: Annotated[str, Field(pattern="^https?://.")] | None = None
    """Where traces of jobs are sent as OTLP over HTTP: `http://collector:4318/v1/traces`. Takes the
    extra `otel`. None are made when not set."""

    outbound_hosts: str = ""
    """Hosts that webhooks may be sent to, and models and bundles fetched from, over https: names
    with commas between them; `*.example.com` stands for all names below. None when empty."""
    outbound_private_hosts: str = ""
    """Exceptions, as `host:port` with commas between them: they may have private addresses and
    speak plain http."""
    source_buckets: str = ""
    """Buckets, or `bucket/prefix`, with commas between them, that models and bundles may be given
    from as `s3://` URLs. None when empty."""
    webhook_secret: Annotated[SecretStr, Field(min_length=24)] | None = None
    """What the signing secrets of webhooks follow from: the same for every API and worker. When
    not set no webhooks are sent."""
    webhook_attempts: Annotated[int, Field(ge=1)] = 8
    """Times that a webhook is sent before it is given up."""
    webhook_first_pause_s: Seconds = 5.0
    """Seconds to the second attempt; each further pause is four times as long, up to six hours."""

    max_upload_bytes: Bytes = 16 * 2**30
    """Largest uploaded file (one part of a multipart body, or a raw body), in bytes."""
    max_model_bytes: Bytes = 8 * 2**30
    """Largest model file, in bytes, packed or not."""
    max_options_bytes: Bytes = 64 * 2**10
    """Largest text part of a multipart body (`options`, `model_id`, `bundle_id`), in bytes."""
    max_cut_bytes: Bytes = 32 * 2**20
    """Largest JSON body of a cut (a report that is replayed), and largest uploaded score state, in
    bytes."""
    max_parts: Annotated[int, Field(ge=1)] = 8
    """Most parts in a multipart body."""
    max_array_bytes: Bytes = 16 * 2**30
    """Largest array of a bundle, unpacked, in bytes."""
    max_unpacked_bytes: Bytes = 32 * 2**30
    """Largest bundle or zipped model, unpacked, in bytes."""
    max_unpack_ratio: Annotated[float, Field(gt=1)] = 200.0
    """Largest ratio of unpacked to packed bytes in a bundle or a zipped model."""
    upload_idle_timeout_s: Seconds = 60.0
    """Seconds an upload may stand still before it is given up."""
    min_free_disk_bytes: Annotated[int, Field(ge=0)] = 512 * 2**20
    """Free bytes on the disk of `DATA_DIR` below which new work is refused."""

    max_stored_bytes: Bytes | None = None
    """Bytes of all models, bundles and results together above which new ones are refused. No
    limit but the disk when not set."""
    max_stored_bytes_per_owner: Bytes | None = None
    """The same for each owner of API keys."""

    job_retention_s: Annotated[float, Field(ge=0)] = 30 * 86400.0
    """Seconds that a job's results are kept after its end, and its record as long again; 0 keeps
    both until they are deleted."""
    upload_retention_s: Annotated[float, Field(ge=0)] = 30 * 86400.0
    """Seconds that a model or bundle is kept after its last use; 0 keeps it until it is deleted."""
    cache_retention_s: Annotated[float, Field(ge=0)] = 86400.0
    """Seconds that `DATA_DIR` keeps a copy of what is in `STORAGE_URL` after its last use."""
    sweep_interval_s: Seconds = 60.0
    """Seconds between looks for what is to be removed."""

    max_concurrent_jobs: Annotated[int, Field(ge=1)] = 1
    """Jobs that a worker runs at the same time, each in a child process of its own."""
    worker_cores: Annotated[str, Field(pattern=_CORES)] | None = None
    """Processor cores that a worker and its jobs run on, as in `taskset`: `0-3,8`. For a machine
    with several workers, or to leave the others to the API. All when not set."""
    score_shards: Annotated[int, Field(ge=1, le=256)] = 1
    """Shards that the scoring in a job is split into where its option `score_shards` does not say.
    Workers that have nothing else to do score them at the same time."""
    warm_children: Annotated[int, Field(ge=0)] = 1
    """Child processes that a worker keeps waiting, with the library imported, for the next jobs,
    and an API for the next inspections. Each takes about 150 MB; without one a job starts, and an
    upload is answered, up to a second later."""
    max_queued_jobs: Annotated[int, Field(ge=0)] = 64
    """Jobs that may wait for a place; further ones are refused until there is room."""
    max_concurrent_inspections: Annotated[int, Field(ge=1)] = 2
    """Child processes that may read models and bundles for inspection at the same time."""
    max_queued_inspections: Annotated[int, Field(ge=0)] = 64
    """Inspections that may wait for a place; further ones are refused until there is room."""
    max_job_attempts: Annotated[int, Field(ge=1)] = 4
    """Times that work on a job is begun, without finishing another round, before it fails."""
    job_timeout_s: Seconds = 3600.0
    """Seconds an attempt at a job may run before its process is ended."""
    inspection_timeout_s: Seconds = 300.0
    """Seconds an inspection of a model or bundle may run before its process is ended."""
    job_memory_bytes: Bytes | None = None
    """Resident memory of one child process above which it is ended, in bytes. When not set: 80 %
    of the machine's (or container's) memory, divided by `MAX_CONCURRENT_JOBS`."""
    job_file_bytes: Bytes = 32 * 2**30
    """Largest file a child process may write, in bytes."""
    gpu_device: Annotated[int, Field(ge=0)] = 0
    """Index of the one GPU that jobs of this server use, where there is one."""
    gpu_memory_bytes: Bytes | None = None
    """Bound on the GPU memory arena of one job, in bytes; all there is when not set."""
    ort_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of one job; 0 takes as many as there are processors."""
    ort_training_python: Path | None = None
    """Python of the environment with onnxruntime-training. When not set: that of the environment
    beside the server's own, with `-training` after its name."""
    ort_training_timeout_s: Seconds = 600.0
    """Seconds the `ort-training` engine may take for one batch before its process is ended."""
    shutdown_grace_s: Seconds = 10.0
    """Seconds that running responses get to end when the server is told to stop."""
    child_module: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$")] = "service.child"
    """Module that runs in child processes. Only the server's own tests set it."""

    @property
    def database(self) -> str:
        """URL of the database of jobs."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'jobs.sqlite'}"

    @property
    def worker(self) -> str:
        """Name of this worker."""
        if self.worker_name is not None:
            return self.worker_name
        return re.sub(r"[^\w.-]", "-", socket.gethostname())[:63] or "worker"

    @property
    def cores(self) -> set[int] | None:
        """Numbers of the processor cores of a worker; None for all."""
        if self.worker_cores is None:
            return None
        ranges = [sorted(map(int, part.split("-"))) for part in self.worker_cores.split(",")]
        return {core for ends in ranges for core in range(ends[0], ends[-1] + 1)}

    @property
    def memory_limit_bytes(self) -> int:
        """Resident bytes one child process may use."""
        if self.job_memory_bytes is not None:
            return self.job_memory_bytes
        share = _memory_of_machine() * _SHARE_OF_MEMORY_FOR_JOBS
        return int(share / self.max_concurrent_jobs)


def explain(error: ValidationError) -> Iterator[str]:
    """A line for each wrong setting; none shows a value, which may be a secret."""
    for problem in error.errors(include_input=False, include_context=False, include_url=False):
        name = "_".join(str(part) for part in problem["loc"]).upper()
        yield f"Setting {name}: {problem['msg']}."


def _memory_of_machine() -> int:
    """Bytes of memory this process may hope for: the container's limit, or the machine's."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = _CGROUP_MEMORY_MAX.read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
