"""Reading models: what is accepted, and which error every kind of bad file gives."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph_ops import errors
from graph_ops.model import ModelLimits, infer_shapes, lift_constants, load_model
from tests.support.model_files import conv_model, edited, zipped
from tests.support.models import (
    LIGHT_NETWORKS,
    light_input,
    light_network,
    random_weights,
    text_model,
)


def external_model(location: str = "w.bin", offset: int = 0, length: int = 432) -> bytes:
    def edit(proto: onnx.ModelProto) -> None:
        weight = proto.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            weight.external_data.add(key=key, value=str(value))

    return edited(edit)


def set_weight(**fields: object) -> bytes:
    def edit(proto: onnx.ModelProto) -> None:
        weight = proto.graph.initializer[0]
        for name, value in fields.items():
            weight.ClearField(name)
            if isinstance(value, list):
                getattr(weight, name).extend(value)
            else:
                setattr(weight, name, value)

    return edited(edit)


def cyclic() -> bytes:
    def edit(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].input[0] = "y"

    return edited(edit)


class Unpickled:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("the pickle was loaded",))


BAD_MODELS: dict[str, tuple[Callable[[], bytes], type[errors.ModelError], str]] = {
    "empty": (lambda: b"", errors.NotOnnxError, "empty"),
    "text": (lambda: b"hello, this is not a model", errors.NotOnnxError, "text"),
    "html": (lambda: b"<!DOCTYPE html><html></html>", errors.NotOnnxError, "HTML"),
    "random": (lambda: np.random.default_rng(0).bytes(4096), errors.NotOnnxError, "protobuf"),
    "pickle": (lambda: pickle.dumps(Unpickled()), errors.NotOnnxError, "pickle"),
    "pytorch": (lambda: zipped(("m/data.pkl", b"x")), errors.NotOnnxError, "PyTorch"),
    "tensor protobuf": (
        lambda: onnx.numpy_helper.from_array(np.ones(3)).SerializeToString(),
        errors.NotOnnxError,
        "not an ONNX model",
    ),
    "cut in the graph": (lambda: conv_model()[:200], errors.TruncatedModelError, "200 bytes"),
    "cut after the version": (lambda: conv_model()[:2], errors.TruncatedModelError, "graph"),
    "cut before the opset": (
        lambda: edited(lambda p: p.ClearField("opset_import")),
        errors.TruncatedModelError,
        "opset_import",
    ),
    "old opset": (
        lambda: edited(lambda p: setattr(p.opset_import[0], "version", 6)),
        errors.UnsupportedVersionError,
        "opset 6",
    ),
    "future opset": (
        lambda: edited(lambda p: setattr(p.opset_import[0], "version", 999)),
        errors.UnsupportedVersionError,
        "opset 999",
    ),
    "future IR": (
        lambda: edited(lambda p: setattr(p, "ir_version", 99)),
        errors.UnsupportedVersionError,
        "IR version 99",
    ),
    "unknown operator": (
        lambda: edited(lambda p: setattr(p.graph.node[1], "op_type", "Reloo")),
        errors.InvalidModelError,
        "Reloo",
    ),
    "undefined input": (
        lambda: edited(lambda p: p.graph.node[0].input.__setitem__(0, "nowhere")),
        errors.InvalidModelError,
        "nowhere",
    ),
    "cycle": (cyclic, errors.InvalidModelError, "'y'"),
    "value written twice": (
        lambda: edited(lambda p: p.graph.node[1].output.__setitem__(0, "c")),
        errors.InvalidModelError,
        "'c'",
    ),
    "initializer twice": (
        lambda: edited(lambda p: p.graph.initializer.append(p.graph.initializer[0])),
        errors.InvalidModelError,
        "'w' occurs twice",
    ),
    "shapes contradict": (
        lambda: set_weight(dims=[2, 3, 3, 3], raw_data=bytes(216)),
        errors.InvalidModelError,
        "(op_type:",
    ),
    "data too short": (lambda: set_weight(raw_data=b"abc"), errors.InvalidModelError, "'w'"),
    "negative dim": (lambda: set_weight(dims=[-4, 3, 3, 3]), errors.InvalidModelError, "negative"),
    "overflowing dims": (
        lambda: set_weight(dims=[2**62, 2**62, 4]),
        errors.InvalidModelError,
        "too large",
    ),
    "unknown element type": (lambda: set_weight(data_type=77), errors.InvalidModelError, "77"),
    "unknown domain": (
        lambda: edited(lambda p: p.graph.node[1].MergeFrom(onnx.NodeProto(domain="my.ops"))),
        errors.UnknownDomainError,
        "'my.ops'",
    ),
    "no convolution": (
        lambda: text_model(
            '<ir_version: 8, opset_import: ["" : 13]> g (float[1] x) => (float[1] y) {y = Relu(x)}'
        ),
        errors.NoConvolutionError,
        "Relu",
    ),
    "data file did not come": (external_model, errors.ExternalDataError, ".zip"),
    "archive without model": (
        lambda: zipped(("readme.txt", b"hi")),
        errors.ModelArchiveError,
        "readme.txt",
    ),
    "archive of two models": (
        lambda: zipped(("a.onnx", conv_model()), ("b.onnx", conv_model())),
        errors.ModelArchiveError,
        "b.onnx",
    ),
    "archive with two of a name": (
        lambda: zipped(("a.onnx", conv_model()), ("W.bin", b""), ("w.bin", b"")),
        errors.ModelArchiveError,
        "w.bin",
    ),
    "archive with parent path": (
        lambda: zipped(("a.onnx", conv_model()), ("../evil", b"")),
        errors.ModelArchiveError,
        "../evil",
    ),
    "archive with absolute path": (
        lambda: zipped(("a.onnx", conv_model()), ("/evil", b"")),
        errors.ModelArchiveError,
        "/evil",
    ),
    "damaged archive": (
        lambda: zipped(("a.onnx", conv_model()))[:-30],
        errors.ModelArchiveError,
        "damaged",
    ),
    "zip bomb": (
        lambda: zipped(("a.onnx", bytes(10**7)), compression=zipfile.ZIP_DEFLATED),
        errors.ModelTooLargeError,
        "200 to one",
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_each_bad_file_has_its_error_and_names_the_thing(case: str) -> None:
    build, error_class, named = BAD_MODELS[case]
    with pytest.raises(errors.ModelError) as caught:
        load_model(build())
    assert type(caught.value) is error_class, caught.value
    assert named in caught.value.message
    assert caught.value.message.endswith((".", ")")) or isinstance(
        caught.value, errors.InvalidModelError
    )


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("/etc/passwd", "/etc/passwd"),
        ("../w.bin", "../w.bin"),
        ("C:\\w.bin", "w.bin"),
        ("", "plain path"),
        ("missing.bin", "missing"),
        ("link.bin", "link"),
        ("linked/w.bin", "link"),
        ("hard.bin", "hard link"),
        ("sub", "not a file"),
    ],
)
def test_external_data_stays_in_the_models_folder(
    tmp_path: Path, location: str, named: str
) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(bytes(432))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "linked").symlink_to(tmp_path)
    os.link(tmp_path / "w.bin", folder / "hard.bin")
    (folder / "m.onnx").write_bytes(external_model(location))
    with pytest.raises(errors.ExternalDataError, match="'w'") as caught:
        load_model(folder / "m.onnx")
    assert named in caught.value.message


@pytest.mark.parametrize(("offset", "length"), [(1, 432), (-1, 432), (0, 400), (2**62, 432)])
def test_external_data_must_fit_in_its_file(tmp_path: Path, offset: int, length: int) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(432))
    (tmp_path / "m.onnx").write_bytes(external_model("w.bin", offset, length))
    with pytest.raises(errors.ExternalDataError, match=r"432"):
        load_model(tmp_path / "m.onnx")


def test_a_link_in_an_archive_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m.onnx", conv_model())
        link = zipfile.ZipInfo("w.bin")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(errors.ModelArchiveError, match=r"w\.bin.* is a link"):
        load_model(buffer.getvalue())


def test_a_file_without_a_name_in_an_archive_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("\0m.onnx"), conv_model())
    with pytest.raises(errors.ModelArchiveError, match="outside its folder"):
        load_model(buffer.getvalue())


def test_an_archive_that_declares_less_than_it_holds_is_refused() -> None:
    data = bytearray(zipped(("m.onnx", conv_model()), compression=zipfile.ZIP_DEFLATED))
    central = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, central + 24, 10)
    with pytest.raises(errors.ModelArchiveError):
        load_model(bytes(data))


def test_limits_are_enforced_by_name() -> None:
    packed = zipped(("m.onnx", conv_model()), ("extra", bytes(100)))
    for limits, named in (
        (ModelLimits(max_bytes=10), "at most 10"),
        (ModelLimits(max_unpacked_bytes=200), "at most 200"),
        (ModelLimits(max_members=1), "at most 1"),
    ):
        with pytest.raises(errors.ModelTooLargeError, match=named):
            load_model(packed, limits=limits)


@pytest.mark.parametrize("form", ["folder", "zip path", "zip bytes", "zip with folder"])
def test_external_weights_are_mapped(tmp_path: Path, form: str) -> None:
    weights = random_weights((4, 3, 3, 3), 0)
    files = (("m.onnx", external_model("d/w.bin", 8)), ("d/w.bin", bytes(8) + weights.tobytes()))
    source: Path | bytes
    if form == "folder":
        (tmp_path / "d").mkdir()
        for name, data in files:
            (tmp_path / name).write_bytes(data)
        source = tmp_path / "m.onnx"
    elif form == "zip path":
        source = tmp_path / "upload"
        source.write_bytes(zipped(*files))
    else:
        prefix = "net/" if form == "zip with folder" else ""
        source = zipped(*((prefix + name, data) for name, data in files))
    loaded = load_model(source)
    tensor = loaded.model.graph.initializers["w"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), weights)
    assert not tensor.numpy().flags.owndata


def test_sha256_and_size_are_those_of_the_upload(tmp_path: Path) -> None:
    data = conv_model()
    (tmp_path / "m.onnx").write_bytes(data)
    for loaded in (load_model(data), load_model(tmp_path / "m.onnx"), load_model(bytearray(data))):
        assert loaded.sha256 == hashlib.sha256(data).hexdigest()
        assert loaded.size_bytes == len(data)
        assert load_model(loaded) is loaded


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.NotOnnxError, match=r"nothing\.onnx"):
        load_model(tmp_path / "nothing.onnx")


def test_shapes_are_inferred_with_the_batch_axis_symbolic() -> None:
    values = ir.convenience.create_value_mapping(load_model(conv_model()).model.graph)
    assert str(values["c"].shape) == "[N,4,6,6]"


def test_a_clone_is_independent_and_shares_data() -> None:
    source = load_model(conv_model())
    clone = source.clone()
    weight = clone.graph.initializers["w"]
    assert weight.const_value is source.model.graph.initializers["w"].const_value
    weight.const_value = ir.tensor(random_weights((2, 3, 3, 3), 1), name="w")
    clone.graph.node(0).outputs[0].shape = None
    for value in [*clone.graph.outputs, *(o for n in clone.graph for o in n.outputs)]:
        value.shape = None
    weight.shape = ir.Shape([2, 3, 3, 3])
    infer_shapes(clone)
    assert str(clone.graph.outputs[0].shape) == "[N,2,6,6]"
    assert str(source.model.graph.outputs[0].shape) == "[N,4,6,6]"


def test_contradicting_shapes_of_a_working_copy_are_an_error() -> None:
    clone = load_model(conv_model()).clone()
    weight = clone.graph.initializers["w"]
    weight.const_value = ir.tensor(random_weights((2, 3, 3, 3), 1), name="w")
    weight.shape = ir.Shape([2, 3, 3, 3])
    with pytest.raises(errors.InvalidModelError, match="Shape inference fails"):
        infer_shapes(clone)


def test_stored_numbers_of_two_axes_are_not_taken_for_a_shape() -> None:
    """`onnx` propagates `[7, 1] + [10]` as if these were shapes; what follows has one as well."""
    data = text_model("""
        <ir_version: 9, opset_import: ["" : 18]>
        g (float[N, 3, 8, 4] x, float[4, 3, 2, 1] w) => (float[N, 4, 7, 10] y)
        <int64[7] rows = {0, 1, 2, 3, 0, 1, 2}, int64[10] columns = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
         int64[1] one = {1}> {
            c = Unsqueeze(rows, one)
            i = Add(c, columns)
            f = Cast <to = 1> (i)
            g = Gather <axis = 3> (x, columns)
            h = Conv(g, w)
            y = Add(h, f)
        }
    """)
    with pytest.raises(onnx.shape_inference.InferenceError, match="Invalid rank for Add"):
        onnx.shape_inference.infer_shapes(
            onnx.load_from_string(data), strict_mode=True, data_prop=True
        )
    shapes = {str(o.name): str(o.shape) for n in load_model(data).model.graph for o in n.outputs}
    assert shapes["i"] == "[7,10]"
    assert shapes["h"] == "[N,4,7,10]"


def test_constants_are_lifted_on_working_copies_only() -> None:
    data = text_model("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y)
        <int64[4] s = {4, 3, 3, 3}> {
            w = ConstantOfShape <value = float[1] {0.5}> (s)
            c = Conv(x, w)
            two = Constant <value_float = 2.0> ()
            y = Mul(c, two)
        }""")
    source = load_model(data)
    copy = source.clone()
    lift_constants(copy)
    assert [node.op_type for node in copy.graph] == ["Conv", "Mul"]
    weight = copy.graph.initializers["w"].const_value
    assert weight is not None
    np.testing.assert_array_equal(weight.numpy(), np.full((4, 3, 3, 3), 0.5, np.float32))
    assert "Constant" in [node.op_type for node in source.model.graph]


def test_functions_are_inlined() -> None:
    data = text_model("""
        <ir_version: 8, opset_import: ["" : 13, "local" : 1]>
        g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[1, 4, 6, 6] y) {
            y = local.ConvRelu(x, w)
        }
        <domain: "local", opset_import: ["" : 13]>
        ConvRelu (a, k) => (b) { t = Conv(a, k)  b = Relu(t) }""")
    source = load_model(data)
    assert [node.op_type for node in source.model.graph] == ["Conv", "Relu"]
    assert not source.model.functions


@pytest.mark.parametrize("name", LIGHT_NETWORKS)
def test_light_networks_load_with_shapes_at_any_batch(name: str) -> None:
    for batch in (None, 2, "N"):
        model = load_model(light_network(name, batch=batch, shrink=16)).model
        value = next(v for v in model.graph.inputs if v.name == light_input(name))
        assert str(value.shape) == f"[{batch or 1},3,224,224]"
        for node in model.graph:
            for output in node.outputs:
                assert output.shape is None or batch == "N" or output.shape.is_static()
        convolutions = [n for n in model.graph if n.op_type == "Conv"]
        assert all(n.outputs[0].shape is not None for n in convolutions)
