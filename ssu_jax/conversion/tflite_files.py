"""TensorFlow Lite's .tflite: a flatbuffer of operators and constant tensors, eight-bit or float; it is not run.

The package `tflite` (the published schema as Python) finds the places; it checks none of the numbers, so every index,
length and shape is compared here before it is used. A quantised tensor becomes float32: (number - zero point) x scale,
for the whole tensor or for each channel, as the format's specification has it.

The constants of convolutions and dense layers are what is read, under the name of the layer and laid out as Flax wants
it: `NAME/kernel` [y, x, in, out], depthwise [y, x, 1, c], dense [in, out], and `NAME/bias`. Such files have the batch
norms folded into them; one that has not is refused.
"""

import contextlib
import functools
import math
import pathlib
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ssu_jax.conversion.rules import Shape
from ssu_jax.conversion.tensors import Source, Tensor
from ssu_jax.types import UserError

SUFFIX = ".tflite"
_IDENTIFIER = b"TFL3"
_MOST_BYTES = 1 << 28  # the whole file is held in memory; the largest network known here has 16 MB
_MOST_PARTS = 10_000  # operators, tensors, buffers
_MOST_INPUTS = 256  # of one operator
_DAMAGES = (struct.error, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError)
_FLOATS = ("FLOAT32", "FLOAT16")
_DTYPES = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT32": "<i4", "INT16": "<i2", "INT8": "i1", "UINT8": "u1"}
# Numbers less their zero point, without overflow.
_WIDER = {"INT32": np.int64, "INT16": np.int32, "INT8": np.int16, "UINT8": np.int16}
# Operator -> number of axes of its kernel, and the order that makes it ours.
_LAYERS: dict[str, tuple[int, tuple[int, ...]]] = {
    "CONV_2D": (4, (1, 2, 3, 0)),  # [out, y, x, in] -> [y, x, in, out]
    "DEPTHWISE_CONV_2D": (4, (1, 2, 0, 3)),  # [1, y, x, c] -> [y, x, 1, c]
    "FULLY_CONNECTED": (2, (1, 0)),  # [out, in] -> [in, out]
}
# What TensorFlow's converter calls a kernel -> the name of its layer; every pattern in turn.
_RENAMED = (
    (r";.*", ""),  # the names of all that was folded into it
    (r"/(?:(?:Conv2D|depthwise|MatMul)(?:_Fold)?|BatchNorm/FusedBatchNormV3)$", ""),
    (r"^tower\d+/network/", ""),
    (r"^layer\d+/fc$", "fc"),
    (r"/sepconv$", "/depthwise"),
    (r"^MobilenetV2/(?=expanded_conv|Logits/)", ""),
)
_NAME = re.compile(r"[\w./-]{1,200}", re.ASCII)


class _Constant(NamedTuple):
    """A tensor whose numbers lie in the file. content: those bytes; scales, zeros: both empty where it is float."""

    name: str
    type: str
    shape: Shape
    content: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray
    axis: int  # of the channels, where there are several scales


def open_file(path: pathlib.Path) -> Source:
    """The layers of a network. Raises UserError: no .tflite file, damaged, a batch norm that is not folded, or a layer
    that cannot be read (its weights are computed, sparse or of another type).
    """
    import tflite

    if (size := path.stat().st_size) > _MOST_BYTES:
        raise UserError(f"{path} is refused: {size} bytes, at most {_MOST_BYTES} are read")
    content = path.read_bytes()
    if content[4:8] != _IDENTIFIER:
        raise UserError(f"{path} is damaged or no {SUFFIX} file: it does not begin like one")
    with _problems(path):
        return Source(path, "tflite", dict(_tensors(path, _Graph(path, tflite, content))), {}, (path,))


class _Graph:
    """The one graph of a file, with checked indices."""

    def __init__(self, path: pathlib.Path, tflite: Any, content: bytes):
        self._path, self._model = path, tflite.Model.GetRootAs(content, 0)
        if self._model.SubgraphsLength() != 1:
            raise UserError(f"{path} holds {self._model.SubgraphsLength()} graphs, only one can be converted")
        self._graph = self._model.Subgraphs(0)
        self._operators = _names(tflite.BuiltinOperator)
        self._types = _names(tflite.TensorType)
        counts = (self._graph.OperatorsLength(), self._graph.TensorsLength(), self._model.BuffersLength())
        if max(counts) > _MOST_PARTS:
            raise ValueError(f"{max(counts)} parts")

    def operators(self) -> Iterator[tuple[str, list[_Constant | None]]]:
        """(operator, each of its inputs that is a constant, None for the others)."""
        for number in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(number)
            code = self._model.OperatorCodes(_checked(operator.OpcodeIndex(), self._model.OperatorCodesLength()))
            # The first 127 kinds stand in the older of the two fields.
            kind = self._operators[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            if operator.InputsLength() > _MOST_INPUTS:
                raise ValueError(f"{operator.InputsLength()} inputs of one operator")
            inputs = [operator.Inputs(place) for place in range(operator.InputsLength())]
            yield kind, [None if index == -1 else self._constant(index) for index in inputs]

    def _constant(self, index: int) -> _Constant | None:
        tensor = self._graph.Tensors(_checked(index, self._graph.TensorsLength()))
        buffer = self._model.Buffers(_checked(tensor.Buffer(), self._model.BuffersLength()))
        if buffer.DataIsNone() or not buffer.DataLength():
            return None
        kind = self._types[tensor.Type()]
        shape = tuple(tensor.Shape(axis) for axis in range(min(tensor.ShapeLength(), 8)))
        if tensor.Sparsity() is not None:
            raise UserError(f"{self._path} is refused: it holds a sparse tensor")
        scales, zeros, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
        if (found := tensor.Quantization()) is not None and found.ScaleLength():
            scales, axis = found.ScaleAsNumpy(), found.QuantizedDimension()
            zeros = found.ZeroPointAsNumpy() if found.ZeroPointLength() else np.zeros(scales.shape, np.int64)
        return _Constant(tensor.Name().decode(), kind, shape, buffer.DataAsNumpy(), scales, zeros, axis)


def _tensors(path: pathlib.Path, graph: _Graph) -> Iterator[tuple[str, Tensor]]:
    seen: set[str] = set()
    for kind, inputs in graph.operators():
        if kind not in _LAYERS:
            # Shapes, axes and sizes are whole numbers without a scale; anything else would be a weight that is lost.
            if foreign := [one for one in inputs if one and (one.type in _FLOATS or one.scales.size)]:
                raise UserError(
                    f"{path} is refused: {kind} has numbers of its own ({_shown(foreign[0].name)}), a batch norm that "
                    f"is not folded, say: convert the network again with its norms folded"
                )
            continue
        kernel, bias = inputs[1], inputs[2] if len(inputs) > 2 else None
        if kernel is None:
            raise UserError(f"{path} is refused: a {kind} whose weights are computed, not stored")
        name = _layer_name(kernel.name)
        if name in seen:
            raise UserError(f"{path} is refused: two layers are called {name}")
        seen.add(name)
        num_axes, order = _LAYERS[kind]
        if len(kernel.shape) != num_axes or (bias and len(bias.shape) != 1):
            raise ValueError(f"{name}: {kind} with weights {kernel.shape}")
        yield f"{name}/kernel", _tensor(path, kernel, lambda array, order=order: array.transpose(order))
        if bias:
            yield f"{name}/bias", _tensor(path, bias, lambda array: array)


def _tensor(path: pathlib.Path, constant: _Constant, arrange: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Checks everything but the numbers themselves."""
    name, shape = constant.name, constant.shape
    if constant.type not in _DTYPES:
        raise UserError(f"{path} is refused: {_shown(name)} is of type {constant.type}, which cannot be converted")
    if min(shape) < 1 or math.prod(shape) * np.dtype(_DTYPES[constant.type]).itemsize != constant.content.size:
        raise ValueError(f"{_shown(name)}: {constant.content.size} bytes for {constant.type} {shape}")
    if constant.type not in _FLOATS:
        count, zeros = constant.scales.size, constant.zeros
        if count == 0:
            raise UserError(f"{path} is refused: {_shown(name)} holds whole numbers without a scale")
        if zeros.size not in (1, count) or (count > 1 and shape[_checked(constant.axis, len(shape))] != count):
            raise ValueError(f"{_shown(name)}: {count} scales and {zeros.size} zero points for {shape}")
        if not (np.isfinite(constant.scales).all() and (constant.scales > 0).all() and np.abs(zeros).max() < 1 << 31):
            raise ValueError(f"{_shown(name)}: a scale or zero point that makes no sense")
    arranged = arrange(np.lib.stride_tricks.as_strided(np.zeros(()), shape, (0,) * len(shape))).shape
    return Tensor(arranged, np.dtype(np.float32), functools.partial(_read, path, constant, arrange))


def _read(path: pathlib.Path, constant: _Constant, arrange: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    numbers = constant.content.view(_DTYPES[constant.type]).reshape(constant.shape)
    if constant.type in _FLOATS:
        return np.ascontiguousarray(arrange(numbers.astype(np.float32)))
    wide, along = _WIDER[constant.type], [1] * numbers.ndim
    if constant.scales.size > 1:
        along[constant.axis] = -1
    with np.errstate(over="ignore"):
        zeros = constant.zeros.astype(wide).reshape(along if constant.zeros.size > 1 else ())
        scales = constant.scales.reshape(along if constant.scales.size > 1 else ())
        array = np.subtract(numbers, zeros, dtype=wide).astype(np.float32) * scales
    if not np.isfinite(array).all():
        raise UserError(f"{path} is damaged: {_shown(constant.name)} holds numbers beyond float32")
    return np.ascontiguousarray(arrange(array))


def _layer_name(kernel: str) -> str:
    name = kernel
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name, flags=re.DOTALL)
    if not _NAME.fullmatch(name):
        raise ValueError(f"a layer is called {_shown(name)}")
    return name


def _shown(name: str) -> str:
    """A name from the file without anything that a terminal would take for an order."""
    return ascii(name)[1:-1][:60]


def _checked(index: int, count: int) -> int:
    if not 0 <= index < count:
        raise IndexError(f"number {index} of {count}")
    return index


def _names(enumeration: type) -> dict[int, str]:
    """Value -> name of one of the schema's lists."""
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int) and name[0] != "_"}


@contextlib.contextmanager
def _problems(path: pathlib.Path) -> Iterator[None]:
    """Turns what reading a damaged flatbuffer raises into a UserError."""
    try:
        yield
    except _DAMAGES as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {str(error)[:200]}") from error
