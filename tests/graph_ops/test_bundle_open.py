"""What `open_bundle` reads, and which error each bad file gets."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_ops.bundle import BundleLimits, Dataset, InputSpec, describe_bundle, open_bundle
from graph_ops.errors import (
    BundleError,
    BundleFormatError,
    BundleTooLargeError,
    DuplicateNameError,
    PickledBundleError,
    PrunerError,
    ShapeMismatchError,
)
from tests.support.bundles import (
    Array,
    npy_bytes,
    safetensors_bytes,
    write_deflated_npz,
    write_npz,
    write_safetensors,
    write_zip,
)

IMAGES = np.random.default_rng(0).standard_normal((13, 3, 4, 5)).astype(np.float32)
LABELS = np.arange(13) % 4
Writer = Callable[..., Path]


def read_all(path: Path | bytes) -> dict[str, Array]:
    with open_bundle(path) as bundle:
        return {
            name: bundle.read(name, np.arange(info.samples)) for name, info in bundle.arrays.items()
        }


def damage_size(data: bytes, size: int) -> bytes:
    """The only member declares another unpacked size, in its local header and the directory."""
    at = data.rindex(b"PK\x01\x02")
    packed = struct.pack("<I", size)
    data = data[: at + 24] + packed + data[at + 28 :]
    return data[:22] + packed + data[26:]


class TestReading:
    @pytest.mark.parametrize("write", [write_npz, write_deflated_npz])
    def test_npz_rows_come_in_the_order_asked_for(self, tmp_path: Path, write: Writer) -> None:
        path = write(tmp_path / "b", image=IMAGES, labels=LABELS)
        wanted = np.array([12, 3, 4, 5, 0, 0, 9])
        with open_bundle(path) as bundle:
            assert bundle.names == ("image", "labels")
            assert bundle.arrays["image"].shape == IMAGES.shape
            assert bundle.arrays["image"].dtype == np.float32
            np.testing.assert_array_equal(bundle.read("image", wanted), IMAGES[wanted])
            np.testing.assert_array_equal(bundle.read("labels", wanted), LABELS[wanted])
            assert bundle.read("image", np.array([], np.int64)).shape == (0, 3, 4, 5)

    def test_both_formats_and_bytes_hold_the_same_arrays(self, tmp_path: Path) -> None:
        npz = write_npz(tmp_path / "a.bin", image=IMAGES, labels=LABELS)
        tensors = write_safetensors(tmp_path / "b.bin", image=IMAGES, labels=LABELS)
        for source in (npz, tensors, npz.read_bytes(), tensors.read_bytes()):
            arrays = read_all(source)
            np.testing.assert_array_equal(arrays["image"], IMAGES)
            np.testing.assert_array_equal(arrays["labels"], LABELS)

    def test_sha256_is_that_of_the_file(self, tmp_path: Path) -> None:
        data = write_npz(tmp_path / "b.npz", image=IMAGES).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        for source in (tmp_path / "b.npz", str(tmp_path / "b.npz"), data):
            with open_bundle(source) as bundle:
                assert bundle.sha256 == digest

    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
    def test_npy_header_versions(self, tmp_path: Path, version: tuple[int, int]) -> None:
        path = write_zip(tmp_path / "b.npz", [("x.npy", npy_bytes(IMAGES, version=version))])
        np.testing.assert_array_equal(read_all(path)["x"], IMAGES)

    @pytest.mark.parametrize("write", [write_npz, write_deflated_npz])
    @pytest.mark.parametrize("dtype", [">f4", ">i8", "<u2", ">f8", "?", "<f2", "|i1"])
    def test_byte_orders_and_types(self, tmp_path: Path, dtype: str, write: Writer) -> None:
        array = (np.arange(24).reshape(6, 4) % 7).astype(dtype)
        found = read_all(write(tmp_path / "b.npz", x=array))["x"]
        assert found.dtype == array.dtype.newbyteorder("=")
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, array)

    @pytest.mark.parametrize("write", [write_npz, write_deflated_npz])
    def test_fortran_order(self, tmp_path: Path, write: Writer) -> None:
        path = write(tmp_path / "b", x=np.asfortranarray(IMAGES))
        np.testing.assert_array_equal(read_all(path)["x"], IMAGES)

    def test_safetensors_small_floats(self, tmp_path: Path) -> None:
        array = np.arange(12).reshape(4, 3)
        half, brain = array.astype(np.float16), array.astype(ml_dtypes.bfloat16)
        arrays = read_all(write_safetensors(tmp_path / "b", half=half, brain=brain))
        assert arrays["brain"].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(arrays["half"], half)
        np.testing.assert_array_equal(arrays["brain"], brain)

    def test_any_byte_but_zero_is_true(self) -> None:
        header = {"x": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}
        found = read_all(safetensors_bytes(header, b"\x00\x07\x01"))["x"]
        assert found.tolist() == [False, True, True]
        assert found.view(np.uint8).tolist() == [0, 1, 1]

    def test_streamed_zip_with_data_descriptors(self, tmp_path: Path) -> None:
        class Unseekable(io.BytesIO):
            def seekable(self) -> bool:
                return False

            def tell(self) -> int:
                raise OSError("a pipe has no position")

        stream = Unseekable()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", npy_bytes(IMAGES))
        np.testing.assert_array_equal(read_all(stream.getvalue())["x"], IMAGES)

    def test_a_scalar_has_no_rows(self, tmp_path: Path) -> None:
        with (
            open_bundle(write_npz(tmp_path / "b", x=np.float32(1))) as bundle,
            pytest.raises(ShapeMismatchError),
        ):
            bundle.read("x", np.array([0]))

    def test_rows_outside_the_array_are_refused(self, tmp_path: Path) -> None:
        with open_bundle(write_npz(tmp_path / "b", x=IMAGES)) as bundle:
            for index in (-1, 13):
                with pytest.raises(IndexError):
                    bundle.read("x", np.array([index]))

    def test_a_file_cut_short_while_open(self, tmp_path: Path) -> None:
        path = write_npz(tmp_path / "b", x=IMAGES)
        with open_bundle(path) as bundle:
            os.truncate(path, 500)
            with pytest.raises(BundleFormatError, match="truncated"):
                bundle.read("x", np.array([12]))

    def test_nothing_is_left_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
        (tmp_path / "spool").mkdir()
        data = write_deflated_npz(tmp_path / "b", x=IMAGES).read_bytes()
        before = len(os.listdir("/proc/self/fd"))
        with open_bundle(data) as bundle:
            bundle.read("x", np.array([0]))
        with pytest.raises(BundleFormatError):
            open_bundle(data[:-30])
        assert not os.listdir(tmp_path / "spool")
        assert len(os.listdir("/proc/self/fd")) == before


def npz(members: list[tuple[str, bytes]], *, compressed: bool = False) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_zip(Path(folder) / "b", members, compressed=compressed).read_bytes()


def duplicate_members() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return npz([("image.npy", npy_bytes(LABELS)), ("image.npy", npy_bytes(LABELS))])


def flipped_bit() -> bytes:
    data = bytearray(npz([("image.npy", npy_bytes(IMAGES))]))
    data[1000] ^= 1
    return bytes(data)


def test_a_description_reads_no_stored_array_and_opening_finds_the_damage() -> None:
    found = describe_bundle(flipped_bit())
    assert found["arrays"] == [
        {"name": "image", "dtype": str(IMAGES.dtype), "shape": list(IMAGES.shape)}
    ]
    with pytest.raises(BundleFormatError, match=r"'image\.npy' does not match its checksum"):
        open_bundle(flipped_bit())


def overlapping_members() -> bytes:
    """Both directory entries point at the first member's bytes."""
    data = npz([("image.npy", npy_bytes(LABELS)), ("other.npy", npy_bytes(LABELS))])
    at = data.rindex(b"PK\x01\x02")
    return data[: at + 42] + struct.pack("<I", 0) + data[at + 46 :]


def encrypted() -> bytes:
    data = npz([("image.npy", npy_bytes(LABELS))])
    at = data.rindex(b"PK\x01\x02")
    return data[: at + 8] + b"\x01\x00" + data[at + 10 :]


def with_method(method: int) -> bytes:
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.writestr("image.npy", npy_bytes(LABELS))
        file.seek(0)
        return file.read()


def header_with(shape: str, descr: str = "<f4", data: bytes = b"") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return npz([("image.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)])


def tensor(
    shape: object = (2,), offsets: object = (0, 8), dtype: object = "F32", size: int = 8
) -> bytes:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    return safetensors_bytes({"image": entry}, bytes(size))


def two_tensors(first: tuple[int, int], second: tuple[int, int], size: int) -> bytes:
    return safetensors_bytes(
        {
            name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
            for name, (begin, end) in {"image": first, "other": second}.items()
        },
        bytes(size),
    )


TENSOR_TEXT = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
DEFLATED = npz([("image.npy", npy_bytes(IMAGES))], compressed=True)

BAD: dict[str, tuple[Callable[[], bytes], type[BundleError]]] = {
    "no bytes": (lambda: b"", BundleFormatError),
    "text": (lambda: b"hello, world", BundleFormatError),
    "a single npy": (lambda: npy_bytes(IMAGES), BundleFormatError),
    "a pickle": (lambda: pickle.dumps({"image": [1]}), PickledBundleError),
    "truncated npz": (lambda: DEFLATED[:-100], BundleFormatError),
    "only the start of an npz": (lambda: DEFLATED[:40], BundleFormatError),
    "zip without npy": (lambda: npz([("a.txt", b"x")]), BundleFormatError),
    "member is not npy": (lambda: npz([("image.npy", b"hello")]), BundleFormatError),
    "member is empty": (lambda: npz([("image.npy", b"")]), BundleFormatError),
    "object array": (
        lambda: npz([("image.npy", npy_bytes(np.array([{}, None], object)))]),
        PickledBundleError,
    ),
    "object field": (
        lambda: npz([("image.npy", npy_bytes(np.zeros(2, [("a", "O")])))]),
        PickledBundleError,
    ),
    "two members of one name": (duplicate_members, DuplicateNameError),
    "bit flipped in a stored member": (flipped_bit, BundleFormatError),
    "members that overlap": (overlapping_members, BundleFormatError),
    "encrypted": (encrypted, BundleFormatError),
    "bzip2": (lambda: with_method(zipfile.ZIP_BZIP2), BundleFormatError),
    "lzma": (lambda: with_method(zipfile.ZIP_LZMA), BundleFormatError),
    "shape larger than the data": (lambda: header_with("(9, 9)"), BundleFormatError),
    "shape smaller than the data": (lambda: header_with("(1,)", data=bytes(8)), BundleFormatError),
    "negative shape": (lambda: header_with("(-1, -2)", data=bytes(8)), BundleFormatError),
    "shape is code": (lambda: header_with("__import__('os')"), BundleFormatError),
    "shape is deep": (lambda: header_with("(" * 4000), BundleFormatError),
    "huge header": (lambda: header_with("(" + "1," * 9000 + ")"), BundleFormatError),
    "unknown descr": (lambda: header_with("(1,)", "quark"), BundleFormatError),
    "inflates to more than declared": (lambda: damage_size(DEFLATED, 500), BundleTooLargeError),
    "inflates to less than declared": (lambda: damage_size(DEFLATED, 99_999), BundleFormatError),
    "safetensors: header is no JSON": (lambda: safetensors_bytes("{]", b""), BundleFormatError),
    "safetensors: deep JSON": (
        lambda: safetensors_bytes('{"a":' + "[" * 200_000, b""),
        BundleFormatError,
    ),
    "safetensors: header too long": (
        lambda: safetensors_bytes("{" + " " * (5 << 20) + "}", b""),
        BundleFormatError,
    ),
    "safetensors: entry is no object": (
        lambda: safetensors_bytes({"image": 3}, b""),
        BundleFormatError,
    ),
    "safetensors: unknown type": (lambda: tensor(dtype="F9"), BundleFormatError),
    "safetensors: type is a list": (lambda: tensor(dtype=[]), BundleFormatError),
    "safetensors: shape is text": (lambda: tensor(shape="ab"), BundleFormatError),
    "safetensors: shape holds a bool": (lambda: tensor(shape=[True, 2]), BundleFormatError),
    "safetensors: negative shape": (lambda: tensor(shape=[-1, -2]), BundleFormatError),
    "safetensors: one offset": (lambda: tensor(offsets=[8]), BundleFormatError),
    "safetensors: offsets backwards": (lambda: tensor(offsets=[8, 0]), BundleFormatError),
    "safetensors: shape is not the extent": (lambda: tensor(shape=[3]), BundleFormatError),
    "safetensors: truncated": (lambda: tensor(size=7), BundleFormatError),
    "safetensors: bytes left over": (lambda: tensor(size=9), BundleFormatError),
    "safetensors: overlap": (lambda: two_tensors((0, 4), (2, 6), 6), BundleFormatError),
    "safetensors: hole": (lambda: two_tensors((0, 4), (5, 6), 6), BundleFormatError),
    "safetensors: one name twice": (
        lambda: safetensors_bytes(f'{{"image":{TENSOR_TEXT},"image":{TENSOR_TEXT}}}', b"\0"),
        DuplicateNameError,
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(case: str, tmp_path: Path) -> None:
    build, expected = BAD[case]
    data = build()
    (tmp_path / "b").write_bytes(data)
    for source in (data, tmp_path / "b"):
        with pytest.raises(BundleError) as caught:
            open_bundle(source)
        assert type(caught.value) is expected, caught.value
        assert caught.value.message.endswith((".", ".)"))
        if expected is DuplicateNameError or expected is BundleTooLargeError:
            assert caught.value.details["array"] == "image"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleFormatError, match="cannot be opened"):
        open_bundle(tmp_path / "none.npz")


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "named"),
        [
            (BundleLimits(max_arrays=1), "max_arrays"),
            (BundleLimits(max_array_bytes=1000), "max_array_bytes"),
            (BundleLimits(max_unpacked_bytes=3200), "max_unpacked_bytes"),
        ],
    )
    @pytest.mark.parametrize("write", [write_npz, write_safetensors])
    def test_each_limit_is_named(
        self, tmp_path: Path, write: Writer, limits: BundleLimits, named: str
    ) -> None:
        path = write(tmp_path / "b", image=IMAGES, labels=LABELS)
        open_bundle(path).close()
        with pytest.raises(BundleTooLargeError) as caught:
            open_bundle(path, limits=limits)
        assert caught.value.details["limit"] == named

    def test_a_zip_bomb_is_not_unpacked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_deflated_npz(tmp_path / "b", image=np.zeros((100, 1 << 18), "u1"))
        monkeypatch.setattr("graph_ops.bundle.npz._unpack", lambda *_: pytest.fail("unpacked"))
        with pytest.raises(BundleTooLargeError) as caught:
            open_bundle(path)
        assert caught.value.details["limit"] == "max_unpacked_ratio"

    def test_a_small_array_may_pack_as_well_as_it_likes(self, tmp_path: Path) -> None:
        path = write_deflated_npz(tmp_path / "b", labels=np.zeros(100_000, np.int64))
        assert not read_all(path)["labels"].any()

    def test_a_huge_zip_directory_is_not_read(self, tmp_path: Path) -> None:
        data = npz([("x.npy", npy_bytes(LABELS))])
        size = 5 << 20
        end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, size, len(data), 0)
        with pytest.raises(BundleTooLargeError, match="directory"):
            open_bundle(data + bytes(size) + end)

    def test_unpacking_stops_where_the_declared_size_ends(self) -> None:
        """20 MB of zeros declared as 1,000 bytes: over by at most one block when it stops."""
        bomb = npz([("image.npy", npy_bytes(np.zeros(20 << 20, "u1")))], compressed=True)
        with pytest.raises(BundleTooLargeError) as caught:
            open_bundle(damage_size(bomb, 1000))
        found = caught.value.details["found"]
        assert isinstance(found, int)
        assert found <= 2 << 20


def open_and_use(data: bytes) -> None:
    """Everything a run does with a bundle; only the library's own errors may come out."""
    spec = InputSpec("image", np.dtype(np.float32), (None, 3, 4, 5))
    with contextlib.suppress(PrunerError), open_bundle(data) as bundle:
        dataset = Dataset.bind(bundle, [spec], batch_size=4)
        for batch in dataset.batches("scored"):
            assert batch.inputs["image"].shape == (batch.size, 3, 4, 5)


@given(st.binary(max_size=400), st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY"]))
def test_random_bytes_give_library_errors(data: bytes, prefix: bytes) -> None:
    open_and_use(prefix + data)


WELL_FORMED: dict[str, bytes] = {}


@pytest.fixture(scope="module", autouse=True)
def _well_formed(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("bundles") / "b"
    arrays: dict[str, Array] = {"image": IMAGES, "labels": LABELS}
    WELL_FORMED["stored"] = write_npz(path, **arrays).read_bytes()
    WELL_FORMED["deflated"] = write_deflated_npz(path, **arrays).read_bytes()
    WELL_FORMED["safetensors"] = write_safetensors(path, **arrays).read_bytes()


@pytest.mark.parametrize("kind", ["stored", "deflated", "safetensors"])
@settings(max_examples=300)
@given(seed=st.integers(0, 2**32))
def test_mutated_bundles_give_library_errors(kind: str, seed: int) -> None:
    """A few bytes changed, with a bent for headers and directory, or the file cut."""
    rng = random.Random(seed)
    data = bytearray(WELL_FORMED[kind])
    for _ in range(rng.randint(1, 6)):
        region = rng.choice([(0, 300), (len(data) - 300, len(data)), (0, len(data))])
        data[rng.randrange(*region)] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    open_and_use(bytes(data))


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32))
def test_mutated_npy_headers_with_a_right_checksum_give_library_errors(seed: int) -> None:
    """The checksum would hide what the parser makes of a damaged header."""
    rng = random.Random(seed)
    member = bytearray(npy_bytes(IMAGES))
    for _ in range(rng.randint(1, 3)):
        member[rng.randrange(10, 90)] = rng.choice(b"0123456789-,()<>|OUVfi'\"{}:\\x \n\x00\xff")
    data = bytes(member)
    open_and_use(npz([("image.npy", data)]))
