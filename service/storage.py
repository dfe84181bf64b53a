"""What the service keeps on disk, and how it gets there without ever being half there.

    DATA_DIR/
      .lock                     held by those who use the folder: one server, or several roles
      workers/{name}.lock       held by the worker of this name
      jobs.sqlite               the database of jobs, where it is a file
      tmp/{process}/            uploads in progress and work of children; emptied when the process
                                that holds the lock in it has gone
      models/{sha256}/          file, about.json, and what inspections found (*.json)
      bundles/{sha256}/         file, about.json
      jobs/{id}/                checkpoint and results

Every file and folder is written under `tmp/` (or a temporary name), flushed to disk, and then
renamed to its place, so a reader finds all of it or nothing, also after a power cut. Models and
bundles are named by the sha256 of their bytes: the same upload twice is one file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from service.files import move_folder, read_json, remove, sync_folder, write_json
from service.objects import NoObjects, Objects, StorageUnavailable
from service.problems import Problem

_OWNER = ".owner"
# A folder gets its lock file right after it is made, and what others write there (TMPDIR may point
# to it) is short-lived: what has no lock file for so long has no owner.
_UNOWNED_S = 3600.0

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Kind(StrEnum):
    """What an upload is."""

    MODEL = "model"
    BUNDLE = "bundle"


@dataclass(frozen=True)
class StoredUpload:
    """A model or bundle in the store.

    Attributes:
        id: sha256 of the bytes, in hex.
        kind: Model or bundle.
        path: The file.
        size_bytes: Its size.
        filename: Its name at the first upload, without folders.
        created_at: When it was stored, ISO 8601 in UTC.
        used_at: When it was last stored or given to a job, seconds since the epoch.
    """

    id: str
    kind: Kind
    path: Path
    size_bytes: int
    filename: str
    created_at: str
    used_at: float

    @property
    def folder(self) -> Path:
        """Folder of the file and of what is known about it."""
        return self.path.parent


@dataclass(frozen=True)
class _About:
    size_bytes: int
    filename: str
    created_at: str


class DataDirInUseError(RuntimeError):
    """Another server uses the data folder, or the name of this worker."""


class Storage:
    """The data folder.

    Methods block on the disk; coroutines call them through threads where that may take long.
    """

    def __init__(self, root: Path, min_free_bytes: int = 0, objects: Objects | None = None) -> None:
        self.objects = objects or NoObjects()
        self.root = root.absolute()
        self.min_free_bytes = min_free_bytes
        self.jobs = self.root / "jobs"
        self._tmp_root = self.root / "tmp"
        self.tmp = self._tmp_root / secrets.token_hex(6)
        self._workers = self.root / "workers"
        self._uploads = {Kind.MODEL: self.root / "models", Kind.BUNDLE: self.root / "bundles"}
        self._locks: list[int] = []

    def open(self) -> None:
        """Create the folders, and clear what processes that are gone left half done."""
        folders = (self._tmp_root, self.tmp, self.jobs, self._workers, *self._uploads.values())
        for folder in (self.root, *folders):
            folder.mkdir(parents=True, exist_ok=True)
        self._locks.append(_open_lock(self.tmp / _OWNER))
        fcntl.flock(self._locks[-1], fcntl.LOCK_EX)
        self.clear_leftovers()

    def lock(self, exclusively: bool) -> int:
        """Keep servers away that could not share the folder; the lock's file descriptor.

        Args:
            exclusively: For a server that starts its own roles; they inherit the lock.

        Raises:
            DataDirInUseError: somebody else holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        kind = fcntl.LOCK_EX if exclusively else fcntl.LOCK_SH
        return self._take(
            self.root / ".lock",
            kind,
            f"The data folder {self.root} is used by another server; stop it, or set DATA_DIR.",
        )

    def lock_worker(self, name: str) -> None:
        """Keep a second worker of the same name away: it would run the jobs of the first.

        Raises:
            DataDirInUseError: there is one.
        """
        self._take(
            self._workers / f"{name}.lock",
            fcntl.LOCK_EX,
            f"A worker named {name!r} is running; stop it, or set WORKER_NAME.",
        )

    def close(self) -> None:
        """Remove temporary files and release the locks."""
        remove(self.tmp)
        for fd in self._locks:
            os.close(fd)
        self._locks.clear()

    def _take(self, path: Path, kind: int, refusal: str) -> int:
        fd = _open_lock(path)
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise DataDirInUseError(refusal) from None
        self._locks.append(fd)
        return fd

    def clear_leftovers(self) -> None:
        """Remove temporary folders whose owner's lock is free."""
        for folder in self._tmp_root.iterdir():
            try:
                fd = os.open(folder / _OWNER, os.O_RDWR | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - folder.lstat().st_mtime > _UNOWNED_S:
                        remove(folder)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
            except BlockingIOError:
                pass
            finally:
                os.close(fd)

    def free_bytes(self) -> int:
        """Free bytes on the disk of the data folder."""
        return shutil.disk_usage(self.root).free

    def require_space(self, bytes_needed: int = 0) -> None:
        """Refuse work that would fill the disk.

        Raises:
            Problem: `insufficient_storage`.
        """
        free = self.free_bytes()
        if free - bytes_needed < self.min_free_bytes:
            raise Problem(
                "insufficient_storage",
                f"The disk has {free} bytes free; {bytes_needed} more would leave less than the "
                f"{self.min_free_bytes} that are kept free.",
                free_bytes=free,
                needed_bytes=bytes_needed,
                kept_free_bytes=self.min_free_bytes,
            )

    def new_temporary(self) -> Path:
        """A new empty folder on the disk of the store."""
        folder = self.tmp / secrets.token_hex(12)
        folder.mkdir()
        return folder

    def send_ahead(self, kind: Kind, file: Path, sha256: str) -> None:
        """Bring a file's bytes to the object storage, which may take long.

        They count for nothing until `add_upload`, and are the same whoever sends them.
        """
        if self.objects.is_remote and self.find_upload(kind, sha256) is None:
            self.objects.put(f"{kind}s/{sha256}/file", file)

    def add_upload(self, kind: Kind, file: Path, sha256: str, filename: str) -> StoredUpload:
        """Move a complete file into the store; an upload that is there already stays.

        Args:
            kind: Model or bundle.
            file: The file, on the store's disk and already flushed to it. It is gone afterwards.
            sha256: Digest of its bytes, in hex.
            filename: The name its owner gave it.
        """
        existing = self.find_upload(kind, sha256)
        if existing is not None:
            file.unlink()
            self.touch(existing)
            return self.find_upload(kind, sha256) or existing
        about = _About(file.stat().st_size, plain_filename(filename, kind), now())
        folder = self.new_temporary()
        file.rename(folder / "file")
        write_json(folder / "about.json", asdict(about))
        prefix = f"{kind}s/{sha256}"
        if not self.objects.below(prefix):  # sent ahead, unless somebody deleted it just now
            self.objects.put(f"{prefix}/file", folder / "file")
        self.objects.put(f"{prefix}/about.json", folder / "about.json")  # says that it is there
        target = self._uploads[kind] / sha256
        try:
            move_folder(folder, target)
        except OSError:
            if read_json(target / "about.json") is None:
                raise
            remove(folder)
        return self.get_upload(kind, sha256)

    def find_upload(self, kind: Kind, upload_id: str) -> StoredUpload | None:
        """The model or bundle of this id, or None."""
        if not _SHA256.fullmatch(upload_id):
            return None
        folder = self._uploads[kind] / upload_id
        if self.objects.is_remote:
            found = self.objects.read(f"{kind}s/{upload_id}/about.json")
            if found is None:
                return None
            data, used_at = json.loads(found[0]), found[1]
        else:
            data = read_json(folder / "about.json")
            if data is None:
                return None
            try:
                used_at = (folder / "about.json").stat().st_mtime
            except FileNotFoundError:  # deleted just now
                return None
        about = _About(**data)
        return StoredUpload(
            id=upload_id,
            kind=kind,
            path=folder / "file",
            size_bytes=about.size_bytes,
            filename=about.filename,
            created_at=about.created_at,
            used_at=used_at,
        )

    def get_upload(self, kind: Kind, upload_id: str) -> StoredUpload:
        """The model or bundle of this id.

        Raises:
            Problem: `model_not_found` or `bundle_not_found`.
        """
        upload = self.find_upload(kind, upload_id)
        if upload is None:
            raise Problem(
                f"{kind}_not_found",
                f"There is no {kind} with the id {upload_id!r}; upload it with POST /v1/{kind}s.",
            )
        return upload

    @contextlib.contextmanager
    def localised(self, *uploads: StoredUpload) -> Iterator[None]:
        """Have the files of uploads on this machine, and keep them there meanwhile.

        Raises:
            Problem: one was deleted meanwhile.
        """
        with contextlib.ExitStack() as held:
            for upload in uploads:
                if self.objects.is_remote:
                    held.callback(os.close, _hold(upload.folder))
                self.localise(upload)
            yield

    def localise(self, upload: StoredUpload) -> StoredUpload:
        """Make sure that an upload's file is on this machine.

        Raises:
            Problem: it was deleted meanwhile.
        """
        with contextlib.suppress(FileNotFoundError):
            os.utime(upload.path)
            return upload
        upload.folder.mkdir(exist_ok=True)
        prefix = f"{upload.kind}s/{upload.id}"
        if not self.objects.fetch(f"{prefix}/file", upload.path):
            remove(upload.folder)
            raise Problem(f"{upload.kind}_not_found", f"The {upload.kind} was deleted just now.")
        with upload.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != upload.id:
            upload.path.unlink()
            raise StorageUnavailable(f"The stored {upload.kind} {upload.id} is damaged.")
        self.objects.fetch(f"{prefix}/about.json", upload.folder / "about.json")
        return upload

    def touch(self, upload: StoredUpload) -> None:
        """Remember that an upload is used now."""
        about = upload.folder / "about.json"
        with contextlib.suppress(FileNotFoundError):
            os.utime(about)
            self.objects.put(f"{upload.kind}s/{upload.id}/about.json", about)

    def uploads(self) -> Iterator[StoredUpload]:
        """All models and bundles."""
        for kind, folder in self._uploads.items():
            is_remote = self.objects.is_remote
            names = self.objects.folders(f"{kind}s") if is_remote else os.listdir(folder)
            for upload_id in names:
                upload = self.find_upload(kind, upload_id)
                if upload is not None:
                    yield upload

    def delete_upload(self, upload: StoredUpload) -> None:
        """Remove a model or bundle and what is known about it."""
        prefix = f"{upload.kind}s/{upload.id}"
        self.objects.delete([f"{prefix}/about.json", f"{prefix}/file"])
        self._discard(upload.folder)

    def delete_job(self, job_id: str) -> None:
        """Remove a job's folder."""
        self.objects.delete([found.name for found in self.objects.below(f"jobs/{job_id}")])
        self._discard(self.jobs / job_id)

    def copies(self) -> Iterator[Path]:
        """Folders of models, bundles and jobs that are on this machine."""
        for folder in (*self._uploads.values(), self.jobs):
            yield from folder.iterdir()

    def forget_copy(self, folder: Path) -> None:
        """Remove one of them from this machine, unless it is used; what it is a copy of stays."""
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._discard(folder)
        except BlockingIOError:
            return
        finally:
            os.close(fd)

    def _discard(self, folder: Path) -> None:
        doomed = self.tmp / secrets.token_hex(12)
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return
        sync_folder(folder.parent)
        remove(doomed)


def _hold(folder: Path) -> int:
    """Make a folder and keep its lock, so that nobody takes it for unused; the descriptor."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(fd, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        os.close(fd)  # it was removed just before it was locked


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def now() -> str:
    """The time, ISO 8601 in UTC with milliseconds."""
    return as_text(time.time())


def as_text(at: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def plain_filename(name: str, kind: Kind) -> str:
    """A file name without folders, control characters or excessive length."""
    base = re.split(r"[/\\]", name)[-1]
    clean = "".join(ch for ch in base if ch.isprintable()).strip().strip(".")
    return clean[-120:] or str(kind)
