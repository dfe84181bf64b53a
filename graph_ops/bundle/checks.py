"""Whether a bundle's arrays fit a model's inputs, each check with its own error."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np

from graph_ops.bundle.arrays import Array, ArrayInfo, DType
from graph_ops.bundle.source import Bundle
from graph_ops.bundle.specs import InputSpec
from graph_ops.errors import (
    DtypeMismatchError,
    EmptyBundleError,
    LabelRangeError,
    LengthMismatchError,
    MissingInputError,
    NotFiniteError,
    ShapeMismatchError,
)

# Numpy does not count these among its floating types.
SMALL_FLOATS = frozenset(
    np.dtype(t) for t in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
)


def is_float(dtype: DType) -> bool:
    """Whether elements are real floating-point numbers, of 8 bits or more."""
    return dtype.kind == "f" or dtype in SMALL_FLOATS


def is_class_id(info: ArrayInfo) -> bool:
    """Whether an array holds one class id per sample: integers, [N] or [N, 1]."""
    return info.dtype.kind in "iu" and info.shape[1:] in ((), (1,))


def check_names(bundle: Bundle, names: Sequence[str]) -> None:
    """Every name has an array.

    Raises:
        MissingInputError: one has not; the message names what is there and what is needed.
    """
    missing = [name for name in names if name not in bundle.arrays]
    if missing or not names:
        raise MissingInputError(
            f"The bundle has no array named {', '.join(map(repr, missing)) or 'as an input'}. "
            f"Needed: {', '.join(names) or 'none'}; found: {', '.join(bundle.names) or 'none'}. "
            "Name each array as the model's input.",
            missing=missing,
            expected=list(names),
            found=list(bundle.names),
        )


def check_shape(info: ArrayInfo, spec: InputSpec) -> None:
    """The array has the input's rank and, per sample, its fixed extents.

    Raises:
        ShapeMismatchError: it has not; the message has a hint where the cause is a common one.
    """
    if not spec.dims:
        raise ShapeMismatchError(
            f"Model input {spec.name!r} is a scalar: without a batch axis it cannot be fed from a "
            "bundle. Make it an initializer of the model.",
            array=spec.name,
            expected=[],
            found=list(info.shape),
        )
    if len(info.shape) == len(spec.dims) and _fits(info.shape[1:], spec.dims[1:]):
        return
    expected = ", ".join(["N", *("?" if dim is None else str(dim) for dim in spec.dims[1:])])
    found = ", ".join(map(str, info.shape))
    hint = _shape_hint(info.shape, spec.dims)
    raise ShapeMismatchError(
        f"Array {info.name!r} has shape [{found}]; the model's input takes [{expected}].{hint}",
        array=info.name,
        expected=["N", *spec.dims[1:]],
        found=list(info.shape),
        hint=hint.strip() or None,
    )


def _fits(shape: Sequence[int], dims: Sequence[int | None]) -> bool:
    return len(shape) == len(dims) and all(
        dim is None or dim == size for size, dim in zip(shape, dims, strict=True)
    )


def _shape_hint(shape: tuple[int, ...], dims: tuple[int | None, ...]) -> str:
    inner = shape[1:]
    if len(shape) == len(dims) - 1:
        if dims[1] in (1, None) and _fits(inner, dims[2:]):
            return " The channel axis is missing: save array[:, np.newaxis]."
        if dims[-1] in (1, None) and _fits(inner, dims[1:-1]):
            return " The channel axis is missing: save array[..., np.newaxis]."
        if _fits(shape, dims[1:]):
            return " The batch axis is missing: save array[np.newaxis]."
    if len(shape) == len(dims) > 2:
        if _fits((inner[-1], *inner[:-1]), dims[1:]):
            return " The channels come last: save np.moveaxis(array, -1, 1)."
        if _fits((*inner[1:], inner[0]), dims[1:]):
            return " The channels come first: save np.moveaxis(array, 1, -1)."
    return ""


def check_dtype(info: ArrayInfo, spec: InputSpec) -> None:
    """Every value of the array's type is a value of the input's (a "safe" cast in numpy).

    Raises:
        DtypeMismatchError: not so, or the input does not take numbers.
    """
    if spec.dtype.kind in "OSU":
        raise DtypeMismatchError(
            f"Model input {spec.name!r} takes text, which a bundle cannot hold.",
            array=spec.name,
            expected=str(spec.dtype),
            found=str(info.dtype),
        )
    if not np.can_cast(info.dtype, spec.dtype, "safe"):
        raise DtypeMismatchError(
            f"Array {info.name!r} holds {info.dtype}, which cannot be cast to the model input's "
            f"{spec.dtype} without loss. Save array.astype({str(spec.dtype)!r}).",
            array=info.name,
            expected=str(spec.dtype),
            found=str(info.dtype),
        )


def check_targets(info: ArrayInfo) -> None:
    """Targets are numbers, one or more per sample.

    Raises:
        DtypeMismatchError: they are not real numbers or booleans.
        ShapeMismatchError: they have no batch axis.
    """
    if info.dtype.kind not in "biu" and not is_float(info.dtype):
        raise DtypeMismatchError(
            f"The targets {info.name!r} hold {info.dtype}; they must be integers (class ids), "
            "floats or booleans.",
            array=info.name,
            expected="integer, float or bool",
            found=str(info.dtype),
        )
    if not info.shape:
        raise ShapeMismatchError(
            f"The targets {info.name!r} are a scalar; give one per sample, shape [N] or [N, ...].",
            array=info.name,
            expected=["N"],
            found=[],
        )


def check_lengths(infos: Sequence[ArrayInfo]) -> int:
    """All arrays hold the same number of samples, at least one; returns it.

    Raises:
        LengthMismatchError: the numbers differ.
        EmptyBundleError: there are no samples, or samples without elements.
    """
    first = infos[0]
    for info in infos[1:]:
        if info.samples != first.samples:
            raise LengthMismatchError(
                f"Array {first.name!r} holds {first.samples} samples, but {info.name!r} holds "
                f"{info.samples}; all arrays must hold the same samples along axis 0.",
                array=info.name,
                expected=first.samples,
                found=info.samples,
                lengths={i.name: i.samples for i in infos},
            )
    for info in infos:
        if not info.samples or not info.row_bytes:
            raise EmptyBundleError(
                f"Array {info.name!r} of shape {list(info.shape)} holds no samples.",
                array=info.name,
                found=list(info.shape),
            )
    return first.samples


def check_finite(bundle: Bundle, name: str) -> None:
    """No element is NaN or infinite (nothing to read where the type has neither).

    Raises:
        NotFiniteError: one is; `details["index"]` is the position of the first, one per axis.
    """
    if not is_float(bundle.arrays[name].dtype):
        return
    for begin, block in bundle.stream(name):
        finite = np.isfinite(block)
        if not finite.all():
            index, value = _first(~finite, begin, block)
            raise NotFiniteError(
                f"Array {name!r} holds {value} at index {index}. Calibration data must be finite.",
                array=name,
                index=index,
                found=str(value),
            )


def check_label_range(bundle: Bundle, name: str, classes: int) -> None:
    """Integer targets lie in [0, classes); other targets are not class ids and pass.

    Raises:
        LabelRangeError: one does not; `details["index"]` is the position of the first.
    """
    if bundle.arrays[name].dtype.kind not in "iu":
        return
    for begin, block in bundle.stream(name):
        outside = (block < 0) | (block >= classes)
        if outside.any():
            index, value = _first(outside, begin, block)
            raise LabelRangeError(
                f"Array {name!r} holds class id {value} at index {index}; the model has {classes} "
                f"classes, so ids go from 0 to {classes - 1}.",
                array=name,
                index=index,
                expected=classes,
                found=int(value),
            )


def _first(mask: Array, begin: int, block: Array) -> tuple[list[int], np.generic]:
    """Index in the whole array, and value, of the first element that the mask marks."""
    at = np.unravel_index(int(mask.argmax()), mask.shape)
    value: np.generic = block[at]
    return [begin + int(at[0]), *(int(i) for i in at[1:])], value
