"""Writing models: what surgery left alone comes back byte for byte."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph_ops import errors
from graph_ops.model import SourceModel, infer_shapes, load_model, model_bytes, write_model
from tests.support.models import (
    LIGHT_NETWORKS,
    light_network,
    light_path,
    random_weights,
    text_model,
    with_weights,
)

TWO_CONVOLUTIONS = """
<ir_version: 8, opset_import: ["" : 13]>
g (float[N, 3, 8, 8] x, float[4, 3, 3, 3] w, float[2, 4, 1, 1] v) => (float[N, 2, 6, 6] y) {
    [first] c = Conv(x, w)
    [second] y = Conv(c, v)
}
"""


def parsed(data: bytes) -> onnx.ModelProto:
    model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    return model


def two_convolutions() -> onnx.ModelProto:
    weights = {"w": random_weights((4, 3, 3, 3), 0), "v": random_weights((2, 4, 1, 1), 1)}
    return parsed(with_weights(text_model(TWO_CONVOLUTIONS), weights))


def every_kind_of_detail() -> onnx.ModelProto:
    """Everything `onnx_ir` alone would write back differently, or not at all."""
    proto = two_convolutions()
    proto.producer_name, proto.producer_version = "exporter", ""
    proto.doc_string, proto.domain, proto.model_version = "a model", "example.org", 0
    for key in ("zeta", "alpha"):
        proto.metadata_props.add(key=key, value=key.upper())
    graph = proto.graph
    graph.doc_string = "a graph"
    graph.metadata_props.add(key="z", value="1")
    graph.metadata_props.add(key="a", value="2")
    graph.input[0].doc_string = "an image"
    graph.node[0].ClearField("name")
    graph.node[0].doc_string = "a node"
    graph.node[0].input.append("")
    graph.node[0].metadata_props.add(key="scope", value="net")
    graph.node[0].attribute.add(name="strides", type=onnx.AttributeProto.INTS, ints=[1, 1])
    graph.node[0].attribute.add(
        name="auto_pad", type=onnx.AttributeProto.STRING, s=b"NOTSET", doc_string="why"
    )
    info = graph.value_info.add(name="c", doc_string="kept")
    info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for dim in ("batch", 4, None, 6):
        entry = info.type.tensor_type.shape.dim.add()
        if isinstance(dim, str):
            entry.dim_param = dim
        elif dim is not None:
            entry.dim_value = dim
    graph.value_info.add(name="stale")
    weight = graph.initializer[0]
    values = onnx.numpy_helper.to_array(weight).ravel()
    weight.ClearField("raw_data")
    weight.float_data.extend(values)
    weight.doc_string = "stored as floats"
    unused = graph.initializer.add(name="half", data_type=onnx.TensorProto.FLOAT16, dims=[2])
    unused.int32_data.extend([15360, 16384])
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(["a", "b"], object), "words"))
    annotation = graph.quantization_annotation.add(tensor_name="c")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="half")
    return proto


def constants_and_subgraphs() -> onnx.ModelProto:
    return parsed(
        text_model("""
        <ir_version: 8, opset_import: ["" : 13, "ai.onnx.ml" : 3]>
        g (float[N, 3, 8, 8] x, bool flag) => (float[N, 4, 6, 6] y) {
            shape = Constant <value = int64[4] {4, 3, 3, 3}> ()
            w = ConstantOfShape <value = float[1] {0.5}> (shape)
            c = Conv(x, w)
            y = If (flag) <
                then_branch = yes () => (float[N, 4, 6, 6] p) {
                    two = Constant <value = float {2.0}> ()
                    p = Mul(c, two)
                },
                else_branch = no () => (float[N, 4, 6, 6] q) { q = Relu(c) }
            >
        }""")
    )


def initializer_as_input() -> onnx.ModelProto:
    proto = two_convolutions()
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        info = proto.graph.input.add(name=tensor.name)
        info.type.tensor_type.elem_type = tensor.data_type
        for dim in tensor.dims:
            info.type.tensor_type.shape.dim.add(dim_value=dim)
    return proto


def sparse_weight() -> onnx.ModelProto:
    proto = two_convolutions()
    index = next(i for i, t in enumerate(proto.graph.initializer) if t.name == "v")
    del proto.graph.initializer[index]
    sparse = proto.graph.sparse_initializer.add(dims=[2, 4, 1, 1])
    values = np.array([1.0, 2.0, 3.0], np.float32)
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(values, "v"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 3, 5]), "v_indices"))
    return proto


def half_precision() -> onnx.ModelProto:
    data = text_model("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float16[1, 3, 8, 8] x, float16[4, 3, 3, 3] w) => (float16[1, 4, 6, 6] y) {
            y = Conv(x, w)
        }""")
    weights = random_weights((4, 3, 3, 3), 0).astype(np.float16)
    return parsed(with_weights(data, {"w": weights}))


MODELS = (
    two_convolutions,
    every_kind_of_detail,
    constants_and_subgraphs,
    initializer_as_input,
    sparse_weight,
    half_precision,
)


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_an_unedited_model_comes_back_equal(build: object) -> None:
    assert callable(build)
    proto = build()
    source = load_model(proto.SerializeToString())
    written = onnx.ModelProto.FromString(model_bytes(source, source.clone(), {}))
    assert written == proto


@pytest.mark.parametrize("name", LIGHT_NETWORKS)
def test_an_unedited_light_network_comes_back_byte_for_byte(name: str) -> None:
    for data in (light_path(name).read_bytes(), light_network(name, shrink=16)):
        source = load_model(data)
        assert model_bytes(source, source.clone(), {}) == data


def test_working_copies_do_not_leak_into_what_is_written() -> None:
    proto = every_kind_of_detail()
    source = load_model(proto.SerializeToString())
    working = source.clone()
    copy = ir.Value(name="w_copy", const_value=working.graph.initializers["w"].const_value)
    working.graph.register_initializer(copy)
    working.graph.initializers["w"].name = "renamed"
    ir.to_proto(working)
    infer_shapes(working)
    written = onnx.ModelProto.FromString(model_bytes(source, source.clone(), {}))
    assert written == proto


def test_inlined_functions_are_all_that_changes() -> None:
    proto = onnx.ModelProto.FromString(
        text_model("""
        <ir_version: 8, opset_import: ["" : 13, "local" : 1]>
        g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[1, 4, 6, 6] y) {
            [outer] c = local.ConvRelu(x, w)
            [last] y = Relu(c)
        }
        <domain: "local", opset_import: ["" : 13]>
        ConvRelu (a, k) => (b) { t = Conv(a, k)  b = Relu(t) }""")
    )
    source = load_model(proto.SerializeToString())
    written = onnx.ModelProto.FromString(model_bytes(source, source.clone(), {}))
    onnx.checker.check_model(written, full_check=True)
    assert [node.op_type for node in written.graph.node] == ["Conv", "Relu", "Relu"]
    assert [(o.domain, o.version) for o in written.opset_import] == [("", 13)]
    assert not written.functions
    assert written.graph.node[-1] == proto.graph.node[-1]
    assert written.graph.input == proto.graph.input
    assert written.graph.output == proto.graph.output
    assert not written.graph.value_info


def dropped_filter(source: SourceModel) -> ir.Model:
    """A clone with filter 1 of the first convolution gone."""
    model = source.clone()
    for name, axis in (("w", 0), ("v", 1)):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        array = np.delete(value.const_value.numpy(), 1, axis)
        value.const_value = ir.Tensor(array, name=name)
        value.shape = ir.Shape(array.shape)
    for node in model.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None
    infer_shapes(model)
    return model


@pytest.mark.parametrize("build", [every_kind_of_detail, initializer_as_input, sparse_weight])
def test_only_what_was_cut_changes(build: object) -> None:
    assert callable(build)
    proto = build()
    source = load_model(proto.SerializeToString())
    written = onnx.ModelProto.FromString(model_bytes(source, dropped_filter(source), {}))
    onnx.checker.check_model(written, full_check=True)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in written.graph.initializer}
    assert stored["w"].shape == (3, 3, 3, 3)
    assert stored["v"].shape == (2, 3, 1, 1)
    for info in (*proto.graph.value_info, *proto.graph.input):
        shape = info.type.tensor_type.shape.dim
        if info.name in ("c", "w"):
            shape[0 if info.name == "w" else 1].dim_value = 3
        elif info.name == "v":
            shape[1].dim_value = 3
    for part in (proto, written):
        for field in ("initializer", "sparse_initializer"):
            kept = [t for t in getattr(part.graph, field) if getattr(t, "name", "v") not in "wv"]
            kept = [type(t).FromString(t.SerializeToString()) for t in kept]
            part.graph.ClearField(field)
            getattr(part.graph, field).extend(kept)
    assert written == proto


def test_an_edited_attribute_and_a_new_initializer_are_written() -> None:
    proto = initializer_as_input()
    source = load_model(proto.SerializeToString())
    model = source.clone()
    node = model.graph.node(1)
    node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [1, 1])
    bias = ir.Value(name="bias", const_value=ir.tensor(np.ones(2, np.float32), name="bias"))
    model.graph.register_initializer(bias)
    node.resize_inputs(3)
    node.replace_input_with(2, bias)
    written = onnx.ModelProto.FromString(model_bytes(source, model, {}))
    onnx.checker.check_model(written, full_check=True)
    assert written.graph.node[0] == proto.graph.node[0]
    assert list(written.graph.node[1].input) == ["c", "v", "bias"]
    assert written.graph.node[1].attribute[0].ints == [1, 1]
    assert [i.name for i in written.graph.input][-1] == "bias"  # IR version 3 lists initializers


def test_metadata_is_added_after_the_sources_and_replaces_the_same_key() -> None:
    source = load_model(every_kind_of_detail().SerializeToString())
    data = model_bytes(source, source.clone(), {"tool": "1.0", "alpha": "new"})
    entries = [(e.key, e.value) for e in onnx.ModelProto.FromString(data).metadata_props]
    assert entries == [("zeta", "ZETA"), ("alpha", "new"), ("tool", "1.0")]


def test_a_written_file_is_the_models_bytes(tmp_path: Path) -> None:
    source = load_model(two_convolutions().SerializeToString())
    path = write_model(source, source.clone(), {"a": "b"}, tmp_path / "out.onnx")
    assert path == tmp_path / "out.onnx"
    assert path.read_bytes() == model_bytes(source, source.clone(), {"a": "b"})
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    source = load_model(two_convolutions().SerializeToString())
    model = source.clone()
    model.graph.initializers["w"].const_value = None
    with pytest.raises(errors.InvalidModelError, match="'w'"):
        write_model(source, model, {}, tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def large_weights() -> bytes:
    proto = onnx.ModelProto.FromString(text_model(TWO_CONVOLUTIONS))
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 40
    proto.graph.input[2].type.tensor_type.shape.dim[1].dim_value = 40
    weights = {"w": random_weights((40, 3, 3, 3), 0), "v": random_weights((2, 40, 1, 1), 1)}
    return with_weights(bytes(proto.SerializeToString()), weights)


def test_a_model_over_the_threshold_becomes_an_archive_that_loads(tmp_path: Path) -> None:
    data = large_weights()
    source = load_model(data)
    paths = [
        write_model(
            source, source.clone(), {}, tmp_path / f"{run}.onnx", external_threshold_bytes=2000
        )
        for run in range(2)
    ]
    assert paths[0] == tmp_path / "0.zip"
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with zipfile.ZipFile(paths[0]) as archive:
        assert archive.namelist() == ["model.onnx", "model.onnx.data"]
        archive.extractall(tmp_path / "unpacked")
    onnx.checker.check_model(str(tmp_path / "unpacked" / "model.onnx"), full_check=True)
    again = load_model(paths[0])
    assert onnx.ModelProto.FromString(model_bytes(again, again.clone(), {})) == (
        onnx.ModelProto.FromString(data)
    )


@pytest.mark.slow
def test_a_model_over_two_gigabytes_goes_through(tmp_path: Path) -> None:
    """A sparse data file: 2.3 GB that take no disk, mapped and streamed."""
    channels = 8_100
    proto = onnx.ModelProto.FromString(
        text_model(f"""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[1, {channels}, 6, 6] x, float[{channels}, {channels}, 3, 3] w)
            => (float[1, {channels}, 4, 4] y) {{ y = Conv(x, w) }}""")
    )
    del proto.graph.input[1]
    weight = proto.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT)
    weight.dims.extend([channels, channels, 3, 3])
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(channels * channels * 9 * 4)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    source = load_model(tmp_path / "m.onnx")
    with pytest.raises(errors.ModelTooLargeError):
        model_bytes(source, source.clone(), {})
    model = source.clone()
    value = model.graph.initializers["w"]
    assert value.const_value is not None
    kept = np.broadcast_to(np.float32(0), (8, channels, 3, 3))
    value.const_value = ir.Tensor(np.ascontiguousarray(kept), name="w")
    assert write_model(source, model, {}, tmp_path / "small.onnx").name == "small.onnx"
    assert write_model(source, source.clone(), {}, tmp_path / "same.onnx").name == "same.zip"
