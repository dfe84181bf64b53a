"""`make_bundle` and `onnx-filter-pruner bundle make`: images to an `.npz`, as a run reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from graph_ops.bundle import make_bundle, open_bundle, parse_preprocessing
from graph_ops.cli import app
from graph_ops.errors import BundleFormatError
from graph_ops.pruning import prune
from tests.support import digits
from tests.support.bundles import safetensors_bytes, write_npz
from tests.support.digit_images import (
    COUNT,
    FOLDERS,
    FOLDERS_ORDER,
    GUESS,
    LABELS,
    PIXELS,
    SOURCES,
)
from tests.support.image_bundles import as_folder, as_zip, png


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["bundle", "make", *map(str, arguments)])


def succeed(*arguments: str | Path) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def test_without_settings_the_guess_is_printed_and_not_used(tmp_path: Path) -> None:
    source, out = as_folder(tmp_path / "digits", FOLDERS), tmp_path / "b.npz"
    refused = run(source, "-o", out, "--model", digits.MODEL)
    assert refused.exit_code == 4
    assert "error[bundle_preprocessing]" in refused.stderr
    assert f"guess: {json.dumps(GUESS)}" in refused.stderr
    assert not out.exists()

    accepted = succeed(source, "-o", out, "--model", digits.MODEL, "--accept-guess")
    assert json.dumps(GUESS) in accepted.stderr
    assert "image: float32 [40 × 1 × 28 × 28]" in accepted.stdout
    with open_bundle(out) as bundle:
        expected = PIXELS[FOLDERS_ORDER, np.newaxis] / np.float32(255)
        np.testing.assert_allclose(bundle.read("image", np.arange(COUNT)), expected, rtol=1e-6)
        assert bundle.read("labels", np.arange(COUNT)).tolist() == [
            LABELS[i] for i in FOLDERS_ORDER
        ]


def test_an_accepted_guess_never_takes_the_place_of_settings(tmp_path: Path) -> None:
    files = FOLDERS | {"bundle.json": json.dumps({**GUESS, "scale": 1}).encode()}
    source = as_folder(tmp_path / "digits", files)
    made = succeed(source, "-o", tmp_path / "b.npz", "--model", digits.MODEL, "--accept-guess")
    assert "guessed" not in made.stderr
    with open_bundle(tmp_path / "b.npz") as bundle:
        assert bundle.read("image", np.arange(COUNT)).max() > 200


@pytest.mark.parametrize("kind", SOURCES)
def test_made_bundles_prune_as_their_sources_do(tmp_path: Path, kind: str) -> None:
    source, out = SOURCES[kind](tmp_path / "source"), tmp_path / "b.npz"
    made = succeed(source, "-o", out, "--preprocessing", json.dumps(GUESS), "--json")
    facts = json.loads(made.stdout)
    assert facts["bytes"] == out.stat().st_size
    assert facts["images"]["skipped"] == []
    options = {"recovery": "none", "target": {"filters": 8}}
    from_images = prune(digits.MODEL, source, {**options, "preprocessing": GUESS})
    from_npz = prune(digits.MODEL, out, options)
    kept = [[c["kept"] for c in r.report["convolutions"]] for r in (from_images, from_npz)]
    assert kept[0] == kept[1]
    assert from_images.report["metric"] == from_npz.report["metric"]
    assert from_images.report["bundle"]["images"]["preprocessing"]["channels"] == "gray"


def test_the_same_samples_make_the_same_bytes(tmp_path: Path) -> None:
    wanted = parse_preprocessing(GUESS)
    make_bundle(as_folder(tmp_path / "f", FOLDERS), tmp_path / "a", preprocessing=wanted)
    make_bundle(as_zip(tmp_path / "z", FOLDERS), tmp_path / "b", preprocessing=wanted)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with np.load(tmp_path / "a") as arrays:
        assert arrays["image"].shape == (COUNT, 1, 28, 28)


def test_skipped_images_and_classes_are_told(tmp_path: Path) -> None:
    names = {i: f"{'cat' if label % 2 else 'dog'}/{i:03}.png" for i, label in enumerate(LABELS)}
    files = {names[i]: png(p) for i, p in enumerate(PIXELS)} | {names[3]: b"broken"}
    made = succeed(
        *(as_folder(tmp_path / "f", files), "-o", tmp_path / "b.npz"),
        *("--preprocessing", json.dumps(GUESS)),
    )
    assert f"skipped: {names[3]}\n" in made.stdout
    assert "classes: cat, dog\n" in made.stdout
    assert f"[{COUNT - 1} × 1 × 28 × 28]" in made.stdout


BAD = {
    "no guess without a model": (["--accept-guess"], 2, "--model"),
    "settings that are no JSON": (["--preprocessing", "{"], 2, "JSON"),
    "settings that are not valid": (["--preprocessing", '{"std": [0]}'], 4, "--preprocessing: "),
    "nothing": ([], 4, "bundle.json"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_calls_say_what_is_wrong(tmp_path: Path, name: str) -> None:
    flags, code, words = BAD[name]
    result = run(as_folder(tmp_path / "f", FOLDERS), "-o", tmp_path / "b.npz", *flags)
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr


def test_outputs_that_would_do_harm_are_refused(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "f", FOLDERS)
    for out in (source / "b.npz", tmp_path / "b.zip", tmp_path / "none" / "b.npz"):
        result = run(source, "-o", out, "--preprocessing", json.dumps(GUESS))
        assert result.exit_code == 2, result.stderr
        assert not out.exists()


def test_a_model_whose_input_is_no_image_gives_no_guess(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "g (float[N, 3, 32] x) => (float[N, 4, 30] y) "
        "<float[4, 3, 3] w = {" + ", ".join(["1"] * 36) + "}> { y = Conv(x, w) }"
    )
    onnx.save(model, tmp_path / "m.onnx")
    flags = ("--model", tmp_path / "m.onnx", "--accept-guess")
    result = run(as_folder(tmp_path / "f", FOLDERS), "-o", tmp_path / "b.npz", *flags)
    assert result.exit_code == 4
    assert "--preprocessing" in result.stderr


def test_arrays_take_no_settings(tmp_path: Path) -> None:
    source = write_npz(tmp_path / "a.npz", image=PIXELS[:, np.newaxis].astype(np.float32))
    result = run(source, "-o", tmp_path / "b.npz", "--preprocessing", json.dumps(GUESS))
    assert result.exit_code == 4
    assert "holds arrays" in result.stderr


def test_an_element_type_that_npz_lacks_is_refused(tmp_path: Path) -> None:
    header = {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes(header, bytes(4)))
    with pytest.raises(BundleFormatError, match="bfloat16"):
        make_bundle(tmp_path / "a.safetensors", tmp_path / "b.npz")
    assert not (tmp_path / "b.npz").exists()
