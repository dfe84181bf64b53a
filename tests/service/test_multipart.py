"""Forms whose bytes are put where they probably belong: cut anywhere, the parts are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.hashed_file import BLOCK_BYTES
from service.multipart import FilePart, Form, FormReader, TextPart
from service.problems import Problem

BOUNDARY = b"cut--here"
DELIMITER = b"\r\n--" + BOUNDARY
EXPECTED = {"a": FilePart(4 * BLOCK_BYTES), "b": FilePart(100), "note": TextPart(100)}


def form_of(parts: dict[str, bytes]) -> bytes:
    """A body; what has no file name is a text."""
    names = {name: "" if name == "note" else f'; filename="{name}.bin"' for name in parts}
    return (
        b"".join(
            b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
            % (BOUNDARY, name.encode(), names[name].encode(), content)
            for name, content in parts.items()
        )
        + b"--%s--\r\n" % BOUNDARY
    )


def read(folder: Path, body: bytes, sizes: list[int]) -> Form:
    """The form, of pieces of these sizes, over and over, that are put into the reader's room."""
    content_type = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    reader = FormReader(content_type, EXPECTED, folder, max_parts=4)
    rest, turn = memoryview(body), 0
    try:
        while rest:
            room = reader.room()
            size = min(len(room), len(rest), sizes[turn % len(sizes)])
            room[:size] = rest[:size]
            reader.took(size)
            rest, turn = rest[size:], turn + 1
        return reader.finish()
    finally:
        reader.close()


almost = st.lists(
    st.integers(1, len(DELIMITER)).map(lambda size: DELIMITER[:size])
    | st.sampled_from([b"\r", b"\n", b"-", b"x", DELIMITER[:-1] + b"x"]),
    min_size=1,
    max_size=6,
).map(lambda parts: b"x" + b"".join(parts).replace(DELIMITER, b"y"))


@settings(deadline=None)
@given(almost, almost, st.lists(st.integers(1, 40), min_size=1, max_size=5))
@example(b"x" + DELIMITER[:-1], b"x\r", [1])
def test_files_are_whole_whatever_of_a_boundary_is_in_them(
    tmp_path_factory: pytest.TempPathFactory, first: bytes, second: bytes, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("form")
    form = read(folder, form_of({"a": first, "note": b"text", "b": second}), sizes)
    assert form.files["a"].path.read_bytes() == first
    assert form.files["b"].path.read_bytes() == second
    assert form.texts == {"note": "text"}


@pytest.mark.parametrize("size", [BLOCK_BYTES - 1, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_bytes_of_a_large_file_are_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    parsed: list[int] = []
    write = FormReader.write

    def note(self: FormReader, data: bytes) -> None:
        parsed.append(len(data))
        write(self, data)

    monkeypatch.setattr(FormReader, "write", note)
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    piece = 10_000
    form = read(tmp_path, form_of({"a": content, "b": b"x"}), [piece])
    assert form.files["a"].path.read_bytes() == content
    assert sum(parsed) <= 3 * piece  # head, end, and perhaps a boundary that is cut


def test_a_limit_holds_in_the_room_too(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        read(tmp_path, form_of({"b": bytes(1000)}), [70])
    assert caught.value.code == "upload_too_large"
    assert not list(tmp_path.iterdir())
