"""Bundles of images: every layout gives the same arrays, and no archive is trusted."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

from graph_ops import prune
from graph_ops.bundle import (
    BundleLimits,
    InputSpec,
    describe_bundle,
    guess_preprocessing,
    open_bundle,
    parse_preprocessing,
)
from graph_ops.errors import (
    BundleFormatError,
    BundleTooLargeError,
    DuplicateNameError,
    ImageError,
    PreprocessingError,
    PrunerError,
)
from tests.support import digits
from tests.support.bundles import write_npz
from tests.support.image_bundles import as_folder, as_tar, as_tar_gz, as_zip, png

SIZE = 8
RGB = InputSpec("x", np.dtype(np.float32), (None, 3, SIZE, SIZE))
PIXELS = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)
CLASSES = ["b", "a", "b", "a", "b", "a"]
IDS = [1, 0, 1, 0, 1, 0]
PLAIN = {"resize": [SIZE, SIZE]}


PNGS = [png(p) for p in PIXELS]


def settings(**more: object) -> dict[str, bytes]:
    return {"bundle.json": json.dumps(PLAIN | more).encode()}


def in_folders(images: list[bytes] = PNGS) -> dict[str, bytes]:
    return {f"{c}/{i}.png": p for i, (c, p) in enumerate(zip(CLASSES, images, strict=True))}


FLAT = {f"{i}.png": content for i, content in enumerate(PNGS)}
TABLE = "file,class\n" + "".join(f"{i}.png,{c}\n" for i, c in enumerate(CLASSES))
LAYOUTS = {
    "folders": in_folders(),
    "wrapped": {f"top/{name}": content for name, content in in_folders().items()},
    "table": FLAT | {"labels.csv": TABLE.encode()},
    "shard": FLAT | {f"{i}.cls": str(n).encode() for i, n in enumerate(IDS)},
}


@pytest.mark.parametrize("pack", [as_zip, as_tar, as_tar_gz, as_folder])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_archive_gives_the_same_samples(
    tmp_path: Path, pack: object, layout: str
) -> None:
    files = LAYOUTS[layout]
    top = "top/" if layout == "wrapped" else ""
    path = pack(tmp_path / "b", files | {f"{top}bundle.json": settings()["bundle.json"]})  # type: ignore[operator]
    with open_bundle(path, inputs=[RGB]) as bundle:
        assert bundle.arrays["x"].shape == (6, 3, SIZE, SIZE)
        samples = bundle.read("x", np.arange(6))
        labels = bundle.read("labels", np.arange(6))
    order = [1, 3, 5, 0, 2, 4] if layout in ("folders", "wrapped") else list(range(6))
    expected = PIXELS[order].transpose(0, 3, 1, 2) * np.float32(1 / 255)
    np.testing.assert_allclose(samples, expected, rtol=1e-6)
    assert labels.tolist() == [IDS[i] for i in order]


def test_the_settings_are_applied_in_their_order(tmp_path: Path) -> None:
    wanted = settings(
        channels="bgr", layout="NHWC", mean=[0.1, 0.2, 0.3], std=[2, 4, 8], crop=[6, 4]
    )
    with open_bundle(as_zip(tmp_path / "b", FLAT | wanted), inputs=[RGB]) as bundle:
        found = bundle.read("x", np.asarray([4, 1]))
        assert "labels" not in bundle.arrays
    middle = PIXELS[[4, 1], 1:7, 2:6, ::-1] / 255
    np.testing.assert_allclose(found, (middle - [0.1, 0.2, 0.3]) / [2, 4, 8], rtol=1e-5, atol=1e-6)


def test_classes_give_the_ids_their_order(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "b", in_folders() | settings(classes=["b", "a"]))
    with open_bundle(path, inputs=[RGB]) as bundle:
        assert bundle.read("labels", np.arange(6)).tolist() == [1, 1, 1, 0, 0, 0]


def test_without_settings_a_guess_is_offered_and_nothing_is_used(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "b", in_folders())
    with pytest.raises(PreprocessingError) as error:
        open_bundle(path, inputs=[RGB])
    guess = error.value.details["guess"]
    assert isinstance(guess, dict)
    assert guess["resize"] == [SIZE, SIZE]
    with open_bundle(path, preprocessing=parse_preprocessing(guess)) as bundle:
        assert bundle.arrays["x"].shape == (6, 3, SIZE, SIZE)
    found = describe_bundle(path)["images"]
    assert found == {
        "count": 6,
        "is_labelled": True,
        "classes": ["a", "b"],
        "preprocessing": None,
    }


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ((None, 3, 224, 224), {"resize": 256, "crop": (224, 224), "layout": "NCHW"}),
        ((1, 32, 32, 3), {"resize": (32, 32), "crop": None, "layout": "NHWC"}),
        ((None, 1, 28, 28), {"resize": (28, 28), "channels": "gray", "mean": ()}),
        ((None, 10), None),
    ],
)
def test_a_guess_follows_the_input(
    dims: tuple[int | None, ...], expected: dict[str, object] | None
) -> None:
    guess = guess_preprocessing([InputSpec("x", np.dtype(np.float32), dims)])
    found = guess and {key: getattr(guess, key) for key in expected or ()}
    assert found == expected


def test_corrupt_images_are_skipped_and_named_up_to_the_limit(tmp_path: Path) -> None:
    images = [*PNGS[:2], PNGS[2][:-30], b"no image", *PNGS[4:]]
    allowed = as_zip(tmp_path / "a", in_folders(images) | settings(max_corrupt=0.34))
    with open_bundle(allowed, inputs=[RGB]) as bundle:
        assert bundle.images is not None
        assert bundle.images.skipped == ("a/3.png", "b/2.png")
        assert bundle.read("labels", np.arange(4)).tolist() == [0, 0, 1, 1]
        expected = PIXELS[[1, 5, 0, 4]].transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(bundle.read("x", np.arange(4)), expected, rtol=1e-5)
    with pytest.raises(ImageError) as error:
        open_bundle(as_zip(tmp_path / "b", in_folders(images) | settings()), inputs=[RGB])
    assert error.value.details["corrupt"] == ["a/3.png"]


def evil_tar(path: Path, kind: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("a/0.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    return path


BAD: list[tuple[str, dict[str, bytes], type[PrunerError]]] = [
    ("a name that leads outside", {"../a/0.png": PNGS[0]}, BundleFormatError),
    ("an absolute name", {"/a/0.png": PNGS[0]}, BundleFormatError),
    ("no images", {"a.txt": b"x"}, PrunerError),
    ("an image beside the folders", in_folders() | {"x.png": PNGS[0]}, ImageError),
    ("a class that is not listed", in_folders() | settings(classes=["a"]), ImageError),
    ("a table that lacks a row", FLAT | {"labels.csv": b"0.png,a\n"}, ImageError),
    ("settings that are no JSON", FLAT | {"bundle.json": b"{"}, PreprocessingError),
    ("an unknown setting", FLAT | settings(colour=1), PreprocessingError),
    ("an unknown preset", FLAT | settings(preset="mnist"), PreprocessingError),
    ("a zero std", FLAT | settings(std=[0]), PreprocessingError),
    ("sizes that differ", {"0.png": PNGS[0], "1.png": png(PIXELS[0][:5])}, ImageError),
]


@pytest.mark.parametrize(("files", "error"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
@pytest.mark.parametrize("pack", [as_zip, as_tar])
def test_bad_input_is_refused(
    tmp_path: Path, pack: object, files: dict[str, bytes], error: type[PrunerError]
) -> None:
    content = files if "bundle.json" in files else files | {"bundle.json": b"{}"}
    with pytest.raises(error):
        open_bundle(pack(tmp_path / "b", content), inputs=[RGB])  # type: ignore[operator]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(BundleFormatError):
        open_bundle(evil_tar(tmp_path / "b", kind))


def test_limits_hold_before_an_image_is_decoded(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "b", FLAT | settings())
    for limits in (
        BundleLimits(max_images=3),
        BundleLimits(max_image_bytes=20),
        BundleLimits(max_image_pixels=SIZE * SIZE - 1),
        BundleLimits(max_array_bytes=100),
    ):
        with pytest.raises(BundleTooLargeError):
            open_bundle(path, limits=limits, inputs=[RGB])


def test_a_tar_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    path = as_tar_gz(tmp_path / "b", {"0.png": bytes(32 << 20)})
    assert path.stat().st_size < 1 << 17
    with pytest.raises(BundleTooLargeError):
        open_bundle(path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with tarfile.open(path, "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("0.png"))
    with pytest.raises(DuplicateNameError):
        open_bundle(path)


def test_shards_are_joined_in_the_order_of_their_names(tmp_path: Path) -> None:
    parts = {}
    for name, rows in (("2.npz", slice(3, 6)), ("1.npz", slice(0, 3))):
        shard = write_npz(tmp_path / name, x=PIXELS[rows], labels=np.asarray(IDS[rows]))
        parts[name] = shard.read_bytes()
    for pack in (as_zip, as_tar):
        with open_bundle(pack(tmp_path / "b", parts)) as bundle:
            order = np.asarray([5, 0, 3, 2])
            np.testing.assert_array_equal(bundle.read("x", order), PIXELS[order])
            assert bundle.read("labels", np.arange(6)).tolist() == IDS


def test_a_parquet_image_set_is_read_like_an_archive(tmp_path: Path) -> None:
    images = [{"bytes": content, "path": None} for content in PNGS]
    table = arrow.table({"image": images, "label": IDS})
    parquet.write_table(table, tmp_path / "b.parquet")
    wanted = parse_preprocessing(PLAIN)
    with open_bundle(tmp_path / "b.parquet", preprocessing=wanted, inputs=[RGB]) as bundle:
        expected = PIXELS.transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(bundle.read("x", np.arange(6)), expected, rtol=1e-5)
        assert bundle.read("labels", np.arange(6)).tolist() == IDS


def as_parquet(path: Path, images: list[bytes], labels: list[object]) -> Path:
    column = [{"bytes": content, "path": None} for content in images]
    parquet.write_table(arrow.table({"image": column, "label": labels}), path)
    return path


@pytest.mark.parametrize("pack", [as_zip, as_tar, as_folder])
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "parquet"])
@pytest.mark.parametrize("words", [IDS, CLASSES], ids=["ids", "names"])
def test_shards_of_an_image_set_are_one_set(
    tmp_path: Path, pack: Callable[..., Path], kind: str, words: list[object]
) -> None:
    files = settings()
    # The first shard does not know the class 1, or "b".
    for number, places in ((2, [0, 2, 4, 5]), (1, [1, 3])):
        images, labels = [PNGS[i] for i in places], [words[i] for i in places]
        path = tmp_path / f"part-{number}.{kind}"
        if kind == "parquet":
            as_parquet(path, images, labels)
        else:
            stems = zip(images, labels, strict=True)
            shard = {f"{i}.png": image for i, image in enumerate(images)}
            shard |= {f"{i}.cls": str(label).encode() for i, (_, label) in enumerate(stems)}
            (as_tar if kind == "tar" else as_tar_gz)(path, shard)
        files[path.name] = path.read_bytes()
    with open_bundle(pack(tmp_path / "b", files), inputs=[RGB]) as bundle:
        order = [1, 3, 0, 2, 4, 5]
        expected = PIXELS[order].transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(bundle.read("x", np.arange(6)), expected, rtol=1e-5)
        assert bundle.read("labels", np.arange(6)).tolist() == [IDS[i] for i in order]
        assert bundle.images is not None
        assert bundle.images.classes == (("a", "b") if words is CLASSES else None)


def test_shards_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with_labels = as_tar(tmp_path / "1.tar", LAYOUTS["shard"]).read_bytes()
    without = as_tar(tmp_path / "2.tar", FLAT).read_bytes()
    files = settings() | {"1.tar": with_labels, "2.tar": without}
    with pytest.raises(ImageError, match="one form"):
        open_bundle(as_zip(tmp_path / "b", files), inputs=[RGB])
    files |= {"2.tar": with_labels[:700]}
    with pytest.raises(PrunerError):
        open_bundle(as_zip(tmp_path / "c", files), inputs=[RGB])
    with pytest.raises(BundleTooLargeError):
        open_bundle(as_zip(tmp_path / "d", files), limits=BundleLimits(max_image_bytes=1000))


def test_images_prune_as_their_arrays_do(tmp_path: Path) -> None:
    batch = digits.batch(count=60)
    pixels = np.rint(batch["image"][:, 0] * 255).clip(0, 255).astype(np.uint8)
    files = {f"{i:03}.png": png(p) for i, p in enumerate(pixels)}
    table = "".join(f"{i:03}.png,{label}\n" for i, label in enumerate(batch["labels"]))
    files |= {"labels.csv": table.encode(), "bundle.json": b'{"preset": "grayscale"}'}
    arrays = pixels[:, np.newaxis] * np.float32(1 / 255)
    npz = write_npz(tmp_path / "b.npz", image=arrays, labels=batch["labels"])
    options = {"recovery": "none"}
    from_images = prune(digits.MODEL, as_zip(tmp_path / "b.zip", files), options)
    from_arrays = prune(digits.MODEL, npz, options)
    kept = [[c["kept"] for c in r.report["convolutions"]] for r in (from_images, from_arrays)]
    assert kept[0] == kept[1]
    assert from_images.report["bundle"]["images"]["skipped"] == []
