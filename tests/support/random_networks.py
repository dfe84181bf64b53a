"""Random convolutional networks of supported operators, as a hypothesis strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.support.cutting import model_of

SIZE = 8
MAX_CHANNELS = 32


@dataclass(frozen=True)
class Tensor:
    name: str
    channels: int
    size: int


@dataclass
class Writer:
    """Node text and weight declarations, written step by step."""

    draw: Callable[[st.SearchStrategy[int]], int]
    nodes: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def pick(self, tensors: list[Tensor]) -> Tensor:
        return tensors[-1 - self.number(0, len(tensors) - 1)]

    def fresh(self, stem: str) -> str:
        return f"{stem}{len(self.nodes)}_{len(self.weights)}"

    def op(self, text: str) -> str:
        """Write a node; `text` is what stands to the right of its output."""
        name = self.fresh("t")
        self.nodes.append(f"{name} = {text}")
        return name

    def weight(self, *dims: int, stem: str = "w", kind: str = "float", value: str = "") -> str:
        name = self.fresh(stem)
        shape = ",".join(map(str, dims))
        self.weights.append(f"{kind}[{shape}] {name}{value}")
        return name

    def ints(self, *numbers: int) -> str:
        value = " = {" + ",".join(map(str, numbers)) + "}"
        return self.weight(len(numbers), stem="i", kind="int64", value=value)

    def conv(self, x: Tensor, filters: int, group: int = 1, kernel: int = 1) -> Tensor:
        weight = self.weight(filters, x.channels // group, kernel, kernel)
        bias = f", {self.weight(filters)}" if self.number(0, 1) else ""
        pad = kernel // 2
        name = self.fresh("c")
        self.nodes.append(
            f"[{name}] {name} = Conv <group = {group}, pads = [{pad},{pad},{pad},{pad}]> "
            f"({x.name}, {weight}{bias})"
        )
        return Tensor(name, filters, x.size)


Step = Callable[[Writer, Tensor], Tensor | None]


def _conv(w: Writer, x: Tensor) -> Tensor:
    return w.conv(x, w.number(1, 8), kernel=1 + 2 * w.number(0, 1))


def _grouped(w: Writer, x: Tensor) -> Tensor | None:
    group = w.number(2, 4)
    return None if x.channels % group else w.conv(x, group * w.number(1, 3), group)


def _depthwise(w: Writer, x: Tensor) -> Tensor | None:
    filters = x.channels * w.number(1, 2)
    return w.conv(x, filters, x.channels, 3) if filters <= MAX_CHANNELS else None


def _transposed(w: Writer, x: Tensor) -> Tensor:
    filters = w.number(1, 6)
    weight = w.weight(x.channels, filters, 1, 1)
    return Tensor(w.op(f"ConvTranspose({x.name}, {weight})"), filters, x.size)


def _normalize(w: Writer, x: Tensor) -> Tensor:
    vectors = [w.weight(x.channels, stem=stem) for stem in ("s", "b", "m", "var")]
    name = w.op(f"BatchNormalization({x.name}, {', '.join(vectors)})")
    return Tensor(name, x.channels, x.size)


def _activate(w: Writer, x: Tensor) -> Tensor:
    op_type = ("Relu", "LeakyRelu", "Sigmoid", "HardSwish", "Tanh")[w.number(0, 4)]
    return Tensor(w.op(f"{op_type}({x.name})"), x.channels, x.size)


def _prelu(w: Writer, x: Tensor) -> Tensor:
    slope = w.weight(x.channels if w.number(0, 1) else 1, 1, 1)
    return Tensor(w.op(f"PRelu({x.name}, {slope})"), x.channels, x.size)


def _scale(w: Writer, x: Tensor) -> Tensor:
    op_type = ("Mul", "Add", "Sub")[w.number(0, 2)]
    name = w.op(f"{op_type}({x.name}, {w.weight(x.channels, 1, 1)})")
    return Tensor(name, x.channels, x.size)


def _residual(w: Writer, x: Tensor) -> Tensor:
    same = [t for t in w.tensors if t.channels in (1, x.channels) and t.size == x.size]
    other = w.pick([*same, x])
    op_type = ("Add", "Sum", "Mul", "Max")[w.number(0, 3)]
    return Tensor(w.op(f"{op_type}({x.name}, {other.name})"), x.channels, x.size)


def _residual_conv(w: Writer, x: Tensor) -> Tensor:
    other = w.conv(x, x.channels)
    return Tensor(w.op(f"Add({x.name}, {other.name})"), x.channels, x.size)


def _concat(w: Writer, x: Tensor) -> Tensor | None:
    room = MAX_CHANNELS - x.channels
    fitting = [t for t in w.tensors if t.size == x.size and t.channels <= room]
    if not fitting:
        return None
    other = w.pick(fitting)
    name = w.op(f"Concat <axis = 1> ({other.name}, {x.name})")
    return Tensor(name, x.channels + other.channels, x.size)


def _split(w: Writer, x: Tensor) -> Tensor | None:
    if x.channels < 2:
        return None
    first = w.number(1, x.channels - 1)
    a, b = w.fresh("p"), w.fresh("q")
    sizes = w.ints(first, x.channels - first)
    w.nodes.append(f"{a}, {b} = Split <axis = 1> ({x.name}, {sizes})")
    w.tensors += [Tensor(a, first, x.size), Tensor(b, x.channels - first, x.size)]
    return Tensor(w.op(f"Concat <axis = 1> ({b}, {a})"), x.channels, x.size)


def _slice(w: Writer, x: Tensor) -> Tensor:
    start = w.number(0, x.channels - 1)
    end = w.number(start + 1, x.channels)
    name = w.op(f"Slice({x.name}, {w.ints(start)}, {w.ints(end)}, {w.ints(1)})")
    return Tensor(name, end - start, x.size)


def _gather(w: Writer, x: Tensor) -> Tensor:
    picks = [w.number(-x.channels, x.channels - 1) for _ in range(w.number(1, 6))]
    name = w.op(f"Gather <axis = 1> ({x.name}, {w.ints(*picks)})")
    return Tensor(name, len(picks), x.size)


def _shuffle(w: Writer, x: Tensor) -> Tensor | None:
    group = w.number(2, 3)
    if x.channels % group:
        return None
    parted = w.ints(0, group, x.channels // group, x.size, x.size)
    a = w.op(f"Reshape({x.name}, {parted})")
    b = w.op(f"Transpose <perm = [0,2,1,3,4]> ({a})")
    merged = w.ints(0, -1 if w.number(0, 1) else x.channels, x.size, x.size)
    return Tensor(w.op(f"Reshape({b}, {merged})"), x.channels, x.size)


def _pool(w: Writer, x: Tensor) -> Tensor | None:
    if x.size < 4:
        return None
    op_type = ("MaxPool", "AveragePool")[w.number(0, 1)]
    name = w.op(f"{op_type} <kernel_shape = [2,2], strides = [2,2]> ({x.name})")
    return Tensor(name, x.channels, x.size // 2)


def _resize(w: Writer, x: Tensor) -> Tensor | None:
    if x.size > SIZE // 2:
        return None
    scales = w.weight(4, kind="float", value=" = {1, 1, 2, 2}")
    name = w.op(f'Resize <mode = "nearest"> ({x.name}, , {scales})')
    return Tensor(name, x.channels, 2 * x.size)


def _space_to_depth(w: Writer, x: Tensor) -> Tensor | None:
    if x.size % 2 or x.channels * 4 > MAX_CHANNELS:
        return None
    return Tensor(w.op(f"SpaceToDepth <blocksize = 2> ({x.name})"), 4 * x.channels, x.size // 2)


def _depth_to_space(w: Writer, x: Tensor) -> Tensor | None:
    if x.channels % 4 or x.size > SIZE:
        return None
    mode = ("DCR", "CRD")[w.number(0, 1)]
    name = w.op(f'DepthToSpace <blocksize = 2, mode = "{mode}"> ({x.name})')
    return Tensor(name, x.channels // 4, 2 * x.size)


def _gate(w: Writer, x: Tensor) -> Tensor:
    pooled = Tensor(w.op(f"GlobalAveragePool({x.name})"), x.channels, 1)
    opened = w.op(f"Sigmoid({w.conv(pooled, x.channels).name})")
    return Tensor(w.op(f"Mul({x.name}, {opened})"), x.channels, x.size)


def _channels_last(w: Writer, x: Tensor) -> Tensor:
    a = w.op(f"Transpose <perm = [0,2,3,1]> ({x.name})")
    columns = w.number(1, 6)
    b = w.op(f"MatMul({a}, {w.weight(x.channels, columns)})")
    return Tensor(w.op(f"Transpose <perm = [0,3,1,2]> ({b})"), columns, x.size)


def _pad(w: Writer, x: Tensor) -> Tensor:
    before, after = w.number(0, 2), w.number(0, 2)
    name = w.op(f"Pad({x.name}, {w.ints(0, before, 0, 0, 0, after, 0, 0)})")
    return Tensor(name, x.channels + before + after, x.size)


STEPS: tuple[Step, ...] = (
    _conv,
    _conv,
    _conv,
    _residual,
    _residual_conv,
    _concat,
    _activate,
    _normalize,
    _grouped,
    _depthwise,
    _shuffle,
    _split,
    _slice,
    _gather,
    _prelu,
    _scale,
    _pool,
    _resize,
    _gate,
    _channels_last,
    _transposed,
    _pad,
    _space_to_depth,
    _depth_to_space,
)


def _head(w: Writer, x: Tensor, output: str) -> None:
    kind = w.number(0, 3)
    length = x.channels * x.size * x.size
    if kind == 0:
        weight = w.weight(3, x.channels, 1, 1)
        w.nodes.append(f"{output} = Conv({x.name}, {weight})")
        return
    if kind == 1:
        rows = w.op(f"Flatten({x.name})")
    elif kind == 2:
        rows = w.op(f"Reshape({x.name}, {w.ints(-1, length)})")
    else:
        pooled = w.op(f"GlobalAveragePool({x.name})")
        rows, length = w.op(f"Reshape({pooled}, {w.ints(0, -1)})"), x.channels
    w.nodes.append(f"{output} = Gemm({rows}, {w.weight(length, 4)}, {w.weight(4)})")


@st.composite
def networks(draw: st.DrawFn) -> bytes:
    """A network of a stem, 2 to 10 random steps, and one or two heads."""
    w = Writer(draw)
    batch = draw(st.sampled_from(("N", "2")))
    w.tensors.append(w.conv(Tensor("x", 3, SIZE), w.number(2, 8), kernel=3))
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=10)):
        source = w.tensors[-1] if w.number(0, 2) else w.pick(w.tensors)
        result = step(w, source)
        if result is not None:
            w.tensors.append(result)
    outputs = ["y"]
    _head(w, w.tensors[-1], "y")
    if w.number(0, 3) == 0:
        outputs.append("z")
        _head(w, w.pick(w.tensors), "z")
    return model_of(
        "\n".join(w.nodes),
        ", ".join(w.weights),
        f"float[{batch},3,{SIZE},{SIZE}] x",
        ", ".join(outputs),
    )
