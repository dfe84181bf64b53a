"""A multipart/form-data body, read from the network straight to disk.

Frameworks parse a form into memory or a spool file before the handler sees it. Here each file
part goes to disk while its sha256 is taken, and a limit ends the upload at the byte that passes
it, so memory stays flat whatever is sent. The grammar of RFC 7578 is `python-multipart`'s
callback parser. Bytes of a file that were put where they belong (`room`) and have no boundary in
them are nothing to it: it is left out, and they are not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from service.problems import Problem
from service.searching import contains, ends_with_start
from service.sinks import FileSink, ReceivedFile, TextSink

# For what comes between files, where the bytes are fetched from the socket directly.
_ROOM_BYTES = 2**20
_PLAIN_ENCODINGS = frozenset({b"", b"binary", b"8bit", b"7bit"})


@dataclass(frozen=True)
class FilePart:
    """A part that is a file; longer ones are refused with `too_large_code`."""

    max_bytes: int
    too_large_code: str = "upload_too_large"


@dataclass(frozen=True)
class TextPart:
    """A part that is a short text in UTF-8."""

    max_bytes: int


@dataclass(frozen=True)
class Form:
    """The parts of a body."""

    files: Mapping[str, ReceivedFile]
    texts: Mapping[str, str]


class FormReader:
    """Takes a body in chunks and gives its parts.

    All methods block on the disk. After an error or `close`, no file is left but those that
    `finish` handed out.
    """

    def __init__(
        self,
        content_type: str,
        expected: Mapping[str, FilePart | TextPart],
        folder: Path,
        *,
        max_parts: int,
        on_file_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._expected = expected
        self._folder = folder
        self._max_parts = max_parts
        self._on_file_bytes = on_file_bytes
        self._files: dict[str, ReceivedFile] = {}
        self._texts: dict[str, str] = {}
        self._parts = 0
        self._headers: dict[bytes, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._name = ""
        self._sink: FileSink | TextSink | None = None
        self._complete = False
        self._room: bytearray | None = None
        self._parser = self._new_parser(content_type)

    def _new_parser(self, content_type: str) -> MultipartParser:
        _, parameters = parse_options_header(content_type)
        boundary = parameters.get(b"boundary", b"")
        if not boundary:
            raise Problem("multipart_invalid", "The Content-Type names no boundary.")
        try:
            return MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value_data,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Problem("multipart_invalid", f"{error}.") from None

    def room(self) -> memoryview:
        """Where the next bytes of the body may be put: in a file, where they probably belong."""
        file = self._open_file()
        if file is not None:
            return file.room()
        if self._room is None:
            self._room = bytearray(_ROOM_BYTES)
        return memoryview(self._room)

    def took(self, size_bytes: int) -> None:
        """Take bytes that are in the room; raises as `write`."""
        came = self.room()[:size_bytes]
        file = self._open_file()
        if file is None or _may_hold(came, self._parser.boundary):
            self.write(bytes(came))
        else:
            file.took(size_bytes)

    def _open_file(self) -> FileSink | None:
        """The file that gets the bytes which come, up to the next boundary."""
        parser = self._parser
        is_inside = parser.state == MultipartState.PART_DATA and parser.index == 0
        return self._sink if is_inside and isinstance(self._sink, FileSink) else None

    def write(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            Problem: the body is malformed, has a part that is not expected, or passes a limit.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Problem(
                "multipart_invalid", f"The multipart body is malformed: {error}."
            ) from None

    def finish(self) -> Form:
        """The parts; called after the last byte.

        Raises:
            Problem: `multipart_invalid` when the closing boundary is missing.
        """
        if not self._complete:
            raise Problem(
                "multipart_invalid", "The multipart body ends before its closing boundary."
            )
        return Form(self._files, self._texts)

    def close(self) -> None:
        """Give up: close what is open. The caller removes the folder."""
        if isinstance(self._sink, FileSink):
            self._sink.abandon()
        self._sink = None

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            raise Problem(
                "too_many_parts",
                f"The body has more than {self._max_parts} parts.",
                limit=self._max_parts,
            )
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        raw = self._headers.get(b"content-disposition", b"").decode("latin-1")
        disposition, parameters = parse_options_header(raw)
        if disposition != b"form-data" or b"name" not in parameters:
            raise Problem(
                "multipart_invalid", "A part has no Content-Disposition: form-data with a name."
            )
        encoding = self._headers.get(b"content-transfer-encoding", b"").strip().lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise Problem(
                "multipart_invalid", "Parts are sent as they are, without a transfer encoding."
            )
        self._name = _utf8(parameters[b"name"])
        self._sink = self._open_sink(_utf8(parameters.get(b"filename", b"")))

    def _open_sink(self, filename: str) -> FileSink | TextSink:
        name = self._name
        kind = self._expected.get(name)
        if kind is None:
            raise Problem(
                "part_unknown",
                f"The part {name[:80]!r} is not known here.",
                part=name[:80],
                allowed=sorted(self._expected),
            )
        if name in self._files or name in self._texts:
            raise Problem("part_duplicate", f"The part {name!r} is there twice.", part=name)
        if isinstance(kind, TextPart):
            return TextSink(name, kind.max_bytes)
        return FileSink(
            self._folder / f"part-{self._parts}",
            filename,
            max_bytes=kind.max_bytes,
            too_large_code=kind.too_large_code,
            part=name,
            on_bytes=self._on_file_bytes,
        )

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        assert self._sink is not None
        self._sink.write(memoryview(data)[start:end])

    def _part_end(self) -> None:
        sink, self._sink = self._sink, None
        if isinstance(sink, TextSink):
            self._texts[self._name] = sink.finish()
        elif isinstance(sink, FileSink):
            self._files[self._name] = sink.finish()

    def _end(self) -> None:
        self._complete = True


def _may_hold(data: memoryview, delimiter: bytes) -> bool:
    """Whether a delimiter is in the data, or begins at its end."""
    return contains(data, delimiter) or ends_with_start(data, delimiter)


def _utf8(raw: bytes) -> str:
    """Header text: parsers hand it out as latin-1 bytes, clients write UTF-8."""
    return raw.decode("utf-8", "replace")
