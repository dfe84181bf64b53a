"""A `.zip` of one `.onnx` file and its external data files, unpacked within limits.

Nothing the archive says is trusted: sizes are counted while unpacking, and a member may only name a
plain file inside the folder.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from graph_ops.errors import ModelArchiveError, ModelTooLargeError, NotOnnxError
from graph_ops.model.limits import ModelLimits

ZIP_MAGIC = b"PK\x03\x04"
_EMPTY_ZIP_MAGIC = b"PK\x05\x06"
_CHUNK_BYTES = 1 << 20
_ENCRYPTED = 0x1


def is_zip(head: bytes) -> bool:
    """Whether a file that starts with `head` is a ZIP archive."""
    return head.startswith((ZIP_MAGIC, _EMPTY_ZIP_MAGIC))


def unpack(source: Path | bytes, folder: Path, limits: ModelLimits) -> Path:
    """Unpacks a model archive into `folder` and returns the path of its `.onnx` file.

    Raises:
        ModelArchiveError: not exactly one `.onnx`, a member's name is not a plain relative path or
            occurs twice, a link, encryption, damage.
        ModelTooLargeError: more members, unpacked bytes or unpacked bytes per packed byte than the
            limits allow.
        NotOnnxError: the archive is a PyTorch file.
    """
    packed_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
    opened: BinaryIO | Path = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with zipfile.ZipFile(opened) as archive:
            members = _checked_members(archive, packed_bytes, limits)
            model = _model_member(members)
            room = int(
                min(limits.max_unpacked_bytes, limits.max_unpacked_ratio * max(packed_bytes, 1))
            )
            for member in members:
                room -= _extract(archive, member, folder, room)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise ModelArchiveError(f"The archive is damaged: {error}; upload it again.") from None
    except (OSError, RuntimeError, UnicodeError) as error:
        raise ModelArchiveError(f"The archive cannot be unpacked: {error}.") from None
    return folder / model.filename


def _checked_members(
    archive: zipfile.ZipFile, packed_bytes: int, limits: ModelLimits
) -> list[zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > limits.max_members:
        raise ModelTooLargeError(
            f"The archive holds {len(infos)} files; at most {limits.max_members} are allowed.",
            found=len(infos),
            limit=limits.max_members,
        )
    # Not `is_dir()`, which fails on an empty name.
    members = [i for i in infos if not i.filename.startswith("__MACOSX/")]
    members = [i for i in members if not i.filename.endswith("/")]
    seen: set[str] = set()
    for member in members:
        _check_name(member)
        if member.filename.casefold() in seen:
            raise ModelArchiveError(
                f"The archive holds two files named {member.filename!r}; keep one.",
                member=member.filename,
            )
        seen.add(member.filename.casefold())
    unpacked = sum(member.file_size for member in members)
    if unpacked > limits.max_unpacked_bytes:
        raise ModelTooLargeError(
            f"The archive unpacks to {unpacked} bytes; at most {limits.max_unpacked_bytes} are"
            " allowed.",
            found=unpacked,
            limit=limits.max_unpacked_bytes,
        )
    if unpacked > limits.max_unpacked_ratio * max(packed_bytes, 1):
        raise ModelTooLargeError(
            f"The archive unpacks to {unpacked} bytes from {packed_bytes}, more than"
            f" {limits.max_unpacked_ratio:g} to one; store the weights uncompressed.",
            found=unpacked,
            packed_bytes=packed_bytes,
            limit=limits.max_unpacked_ratio,
        )
    return members


def _check_name(member: zipfile.ZipInfo) -> None:
    name = member.filename
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or PureWindowsPath(name).drive
        or str(path) in ("", ".")
    ):
        raise ModelArchiveError(
            f"The archive names a file outside its folder: {name!r}; use plain relative names.",
            member=name,
        )
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ModelArchiveError(
            f"{name!r} in the archive is a link; put the file itself there.", member=name
        )
    if member.flag_bits & _ENCRYPTED:
        raise ModelArchiveError(
            f"{name!r} in the archive is encrypted; pack it without a password.", member=name
        )


def _model_member(members: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    names = [member.filename for member in members]
    models = [member for member in members if member.filename.lower().endswith(".onnx")]
    if len(models) == 1:
        return models[0]
    if models:
        found = [member.filename for member in models]
        raise ModelArchiveError(
            f"The archive holds {len(models)} .onnx files ({', '.join(found[:5])}); send one"
            " model.",
            models=found[:100],
        )
    if any(PurePosixPath(name).name == "data.pkl" for name in names):
        raise NotOnnxError(
            "The file is a PyTorch archive, not an ONNX model; export it with torch.onnx.",
            members=names[:100],
        )
    raise ModelArchiveError(
        f"The archive holds no .onnx file, only: {', '.join(names[:5]) or 'nothing'}.",
        members=names[:100],
    )


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, room: int) -> int:
    """Unpacks one member, counting real bytes against `room`, and returns how many there were."""
    target = folder / member.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(member) as packed, target.open("xb") as out:
        while chunk := packed.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > room:
                raise ModelTooLargeError(
                    f"{member.filename!r} unpacks to more than the archive declares or the limits"
                    " allow.",
                    member=member.filename,
                    declared=member.file_size,
                )
            out.write(chunk)
    if written != member.file_size:
        raise ModelArchiveError(
            f"{member.filename!r} unpacks to {written} bytes; the archive declares"
            f" {member.file_size}.",
            member=member.filename,
        )
    return written
