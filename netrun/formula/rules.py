"""What shapes a kernel wants: held against the calls that a Python layer's forward writes down.

A layer of netrun's own is held against the devices by its tests; a user's layer is looked at here, so that a mistake is
one message before anything runs, on every device.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..expression import ExpressionError, letters, names_in, parse
from ..kernels import OPS, Kernels
from ..types import Shape, Window
from .array import FormulaError, broadcast, words

Rule = Callable[..., Mapping[str, Any]]
RULES: dict[str, Rule] = {}
"""From the shapes of a kernel's arguments, by name, and its attributes to the shapes of what it writes. A count in the
place of a shape: any shape of so many values. The shape given for an output is there too, where it decides."""


def rule(function: Rule) -> Rule:
    """Register the rule of the kernel of the same name."""
    RULES[function.__name__.rstrip("_")] = function
    return function


def check(op: str, args: Sequence[Any], attrs: Mapping[str, Any]) -> None:
    """Refuse a call whose arguments do not fit.

    Raises:
        FormulaError: it names the kernel, the argument, what was got and what was wanted.
    """
    shapes: dict[str, Any] = {}
    for argument, arg in zip(OPS[op].arguments, args, strict=True):
        several = isinstance(arg, tuple)
        shapes[argument.name] = [a.shape for a in arg] if several else None if arg is None else arg.shape
    try:
        wanted = RULES[op](**shapes, **attrs)
    except FormulaError as error:
        raise FormulaError(f"k.{op}: {error.what}", error.notes) from None
    except ExpressionError as error:
        raise FormulaError(f"k.{op}: expr: {error}", [error.text, " " * error.position + "^"]) from None
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        given = ", ".join(f"{n} {_shown(s)}" for n, s in shapes.items() if s is not None)
        raise FormulaError(f"k.{op} cannot have these: {given}", [str(error), *_about(op)]) from None
    for name, shape in wanted.items():
        got = shapes[name]
        fits = math.prod(got) == shape if isinstance(shape, int) else got == shape
        if not fits:
            what = f"{shape} values" if isinstance(shape, int) else _shown(shape)
            raise FormulaError(f"k.{op} writes {name} of {what}, got {_shown(got)}", _about(op))


def _about(op: str) -> list[str]:
    return (inspect.getdoc(getattr(Kernels, op)) or "").split("\n\n")[0].split("\n")


def _shown(shape: Any) -> str:
    return ", ".join(words(s) for s in shape) if isinstance(shape, list) else words(shape)


def need(holds: bool, what: str) -> None:
    """Refuse if something does not hold."""
    if not holds:
        raise FormulaError(what)


def _axis(axis: Any, rank: int) -> int:
    need(isinstance(axis, int) and 0 <= axis < rank, f"axis {axis} is not one of the {rank} axes (0 to {rank - 1})")
    return int(axis)


def _window(x: Shape, window: Window) -> Shape:
    need(isinstance(window, Window), "window wants a netrun.types.Window")
    need(len(x) == 2 + window.rank, f"x wants {2 + window.rank} axes for a window of {window.rank}, got {words(x)}")
    out = window.output(x[2:])
    need(min(out, default=1) > 0, f"the window {window} does not fit {words(x)}")
    return out


def _expression(expr: str, xs: list[Shape]) -> None:
    known = letters(len(xs))
    for name in names_in(parse(expr)):
        need(name in known, f'expr has no input "{name}": the inputs are {", ".join(known) or "none"}')


# ---------------------------------------------------------------------------------------------------------- elementwise
@rule
def fill(y: Shape, value: float) -> Mapping[str, Any]:
    return {"y": y}


@rule
def copy(x: Shape, y: Shape) -> Mapping[str, Any]:
    return {"y": math.prod(x)}


@rule
def pointwise(xs: list[Shape], y: Shape, expr: str) -> Mapping[str, Any]:
    _expression(expr, xs)
    return {"y": broadcast([*xs, y])}


@rule
def reduce(xs: list[Shape], y: Shape, expr: str, how: str, axes: Shape) -> Mapping[str, Any]:
    _expression(expr, xs)
    need(how in ("sum", "max"), f'how is "sum" or "max", got {how!r}')
    whole = broadcast(xs)
    for axis in axes:
        _axis(axis, len(whole))
    kept = tuple(1 if i in axes else n for i, n in enumerate(whole))
    same = [n for n in y if n != 1] == [n for n in kept if n != 1]
    return {"y": y if same else kept}


# ------------------------------------------------------------------------------------------------------------- products
@rule
def gemm(a: Shape, b: Shape, c: Shape | None, y: Shape, ta: bool, tb: bool) -> Mapping[str, Any]:
    need(len(a) > 1 and len(b) > 1, f"a and b want at least 2 axes, got {words(a)} and {words(b)}")
    (m, k), (j, n) = (a[-2:][::-1] if ta else a[-2:]), (b[-2:][::-1] if tb else b[-2:])
    need(k == j, f"{k} columns of a ({words(a)}, ta={ta}) meet {j} rows of b ({words(b)}, tb={tb})")
    if c is not None:
        need(broadcast([c, (m, n)]) == (m, n), f"c ({words(c)}) does not broadcast to {m} {n}")
    return {"y": (*broadcast([a[:-2], b[:-2]]), m, n)}


@rule
def conv(x: Shape, w: Shape, b: Shape | None, y: Shape, window: Window, groups: int) -> Mapping[str, Any]:
    out = _window(x, window)
    wanted = (x[1] // groups, *window.kernel)
    fits = w[1:] == wanted and w[0] % groups == 0 and x[1] % groups == 0
    need(fits, f"w ({words(w)}) wants K {words(wanted)} for x ({words(x)}), groups={groups}")
    need(b in (None, w[:1]), f"b wants {w[0]} values")
    return {"y": (x[0], w[0], *out)}


@rule
def conv_grad_x(w: Shape, dy: Shape, dx: Shape, window: Window, groups: int) -> Mapping[str, Any]:
    need(w[1:] == (dx[1] // groups, *window.kernel) and w[0] == dy[1] and w[0] % groups == 0,
         f"w ({words(w)}) wants {words((dy[1], dx[1] // groups, *window.kernel))}, groups={groups}")  # fmt: skip
    need(_window(dx, window) == dy[2:], f"a convolution of dx ({words(dx)}) does not give dy ({words(dy)})")
    return {"dx": (dy[0], *dx[1:])}


@rule
def im2col(x: Shape, y: Shape, window: Window) -> Mapping[str, Any]:
    out = _window(x, window)
    return {"y": (x[0], x[1] * math.prod(window.kernel), *out)}


@rule
def col2im(y: Shape, x: Shape, window: Window) -> Mapping[str, Any]:
    out = _window(x, window)
    need(y == (x[0], x[1] * math.prod(window.kernel), *out), f"y ({words(y)}) does not belong to x ({words(x)})")
    return {"x": x}


# -------------------------------------------------------------------------------------------- pooling and normalisation
@rule
def pool_max(x: Shape, y: Shape, index: Shape, window: Window) -> Mapping[str, Any]:
    shape = (*x[:2], *_covered(x, y, window))
    return {"y": shape, "index": shape}


@rule
def pool_avg(x: Shape, y: Shape, window: Window, count: str) -> Mapping[str, Any]:
    need(count in ("padded", "inside", "kernel"), f'count is "padded", "inside" or "kernel", got {count!r}')
    return {"y": (*x[:2], *_covered(x, y, window))}


@rule
def pool_random(x: Shape, noise: Shape, y: Shape, index: Shape, window: Window) -> Mapping[str, Any]:
    shape = (*x[:2], *_covered(x, y, window))
    need(noise == shape, f"noise wants {words(shape)}, got {words(noise)}")
    return {"y": shape, "index": shape}


def _covered(x: Shape, y: Shape, window: Window) -> Shape:
    """The output size of pooling: as many windows as are asked for; one wholly outside has a value of its own."""
    need(isinstance(window, Window), "window wants a netrun.types.Window")
    rank = 2 + window.rank
    need(len(x) == rank, f"x wants {rank} axes for a window of {window.rank}, got {words(x)}")
    return y[2:] if len(y) == rank else window.output(x[2:])


@rule
def lrn(x: Shape, y: Shape, scale: Shape, size: int, alpha: float, beta: float, k: float) -> Mapping[str, Any]:
    return {"y": x, "scale": x}


@rule
def normalize(x: Shape, y: Shape, mean: Shape, var: Shape, axes: Shape, eps: float) -> Mapping[str, Any]:
    kept = tuple(1 if i in [_axis(a, len(x)) for a in axes] else n for i, n in enumerate(x))
    return {"y": x, "mean": kept, "var": kept}


@rule
def softmax(x: Shape, y: Shape, axis: int) -> Mapping[str, Any]:
    _axis(axis, len(x))
    return {"y": x}


@rule
def softmax_nll(
    x: Shape, label: Shape, prob: Shape, loss: Shape, norm: Shape, axis: int, ignore: Any, normalize: str
) -> Mapping[str, Any]:
    positions = math.prod(x) // x[_axis(axis, len(x))]
    need(math.prod(label) == positions, f"label wants {positions} values, got {words(label)}")
    known = ("valid", "full", "batch", "none")
    need(normalize in known, f"normalize is one of {', '.join(known)}, got {normalize!r}")
    return {"prob": x, "loss": 1, "norm": 1}


@rule
def attention(
    q: Shape, k: Shape, v: Shape, lengths: Shape | None, mask: Shape | None, y: Shape, lse: Shape, scale: float,
    causal: bool,
) -> Mapping[str, Any]:  # fmt: skip
    need(len(q) == len(k) == len(v) == 4, "q, k and v want the axes N H T D")
    fits = k[:2] == v[:2] == q[:2] and k[2] == v[2] and k[3] == q[3]
    need(fits, f"q ({words(q)}), k ({words(k)}) and v ({words(v)}) do not belong together")
    places = (*q[:3], k[2])
    for name, given, wanted in (("lengths", lengths, places[:3]), ("mask", mask, places)):
        fits = given is None or (len(given) == len(wanted) and broadcast([given, wanted]) == wanted)
        need(fits, f"{name} ({words(given or ())}) wants {words(wanted)}, where each may be 1")
    return {"y": (*q[:3], v[3]), "lse": q[:3]}


@rule
def ctc(x: Shape, label: Shape, steps: Shape, count: Shape, loss: Shape, slope: Shape, blank: int) -> Mapping[str, Any]:
    need(len(x) == 3 and len(label) == 2 and label[0] == x[1], "wants x of T N K and label of N L")
    need(steps == count == x[1:2], f"steps and count want {x[1]} values")
    return {"loss": x[1:2], "slope": x}


# ---------------------------------------------------------------------------------------------------------------- shape
@rule
def concat(xs: list[Shape], y: Shape, axis: int) -> Mapping[str, Any]:
    first, at = xs[0], _axis(axis, len(xs[0]))
    for x in xs:
        same = len(x) == len(first) and all(n == m for i, (n, m) in enumerate(zip(x, first, strict=True)) if i != at)
        need(same, f"{words(first)} and {words(x)} differ in another axis than {at}")
    return {"y": (*first[:at], sum(x[at] for x in xs), *first[at + 1 :])}


@rule
def split(x: Shape, ys: list[Shape], axis: int) -> Mapping[str, Any]:
    joined = concat(ys, x, axis)["y"]
    need(joined == x, f"the ys make up {words(joined)}, x is {words(x)}")
    return {}


def slice_(x: Shape, y: Shape, begin: Shape) -> Mapping[str, Any]:
    """A part of x."""
    inside = len(begin) == len(x) == len(y) and all(b >= 0 and b + n <= m for b, n, m in zip(begin, y, x, strict=True))
    need(inside, f"{words(y)} from {words(begin)} on is no part of {words(x)}")
    return {}


RULES["slice"] = slice_
RULES["place"] = lambda x, y, begin: slice_(y, x, begin)


@rule
def transpose(x: Shape, y: Shape, axes: Shape) -> Mapping[str, Any]:
    need(sorted(axes) == list(range(len(x))), f"axes {words(axes)} are no order of the axes of {words(x)}")
    return {"y": tuple(x[a] for a in axes)}


@rule
def gather(x: Shape, index: Shape, y: Shape) -> Mapping[str, Any]:
    return {"y": (*index, *x[1:])}


@rule
def scatter_add(index: Shape, x: Shape, y: Shape) -> Mapping[str, Any]:
    need(x[: len(index)] == index, f"x ({words(x)}) wants the axes of index ({words(index)}) in front")
    return {"y": (*y[:1], *x[len(index) :])}


# ------------------------------------------------------------------------------------------------- sequences and scores
@rule
def rnn(
    x: Shape, w: Shape, cont: Shape | None, first: Shape | None, y: Shape, act: str, reverse: bool
) -> Mapping[str, Any]:
    need(act in ("tanh", "relu"), f'act is "tanh" or "relu", got {act!r}')
    _sequence(x, w, cont, first, x[2], x[2])
    return {"y": x}


def lstm(
    x: Shape, w: Shape, peep: Shape | None, proj: Shape | None, cont: Shape | None, first: Shape | None,
    first_cell: Shape | None, y: Shape, cell: Shape, gates: Shape, reverse: bool,
) -> Mapping[str, Any]:  # fmt: skip
    """A walk of an LSTM over T N 4D."""
    size = x[2] // 4
    out = proj[0] if proj else size
    need(x[2] == 4 * size and peep in (None, (3, size)) and proj in (None, (out, size)), "wants x of T N 4D")
    _sequence(x, w, cont, first, 4 * size, out)
    need(first_cell in (None, (x[1], size)), f"first_cell wants {x[1]} {size}")
    return {"y": (*x[:2], out), "cell": (*x[:2], size), "gates": x}


RULES["lstm"] = lstm


@rule
def gru(
    x: Shape, w: Shape, b: Shape | None, cont: Shape | None, first: Shape | None, y: Shape, gates: Shape, reverse: bool
) -> Mapping[str, Any]:
    size = x[2] // 3
    need(x[2] == 3 * size and b in (None, (size,)), "wants x of T N 3D and b of D")
    _sequence(x, w, cont, first, 3 * size, size)
    return {"y": (*x[:2], size), "gates": (*x[:2], 4 * size)}


def _sequence(x: Shape, w: Shape, cont: Shape | None, first: Shape | None, rows: int, size: int) -> None:
    need(len(x) == 3, f"x wants the axes T N D, got {words(x)}")
    need(w == (rows, size), f"w wants {rows} {size}, got {words(w)}")
    need(cont in (None, x[:2]), f"cont wants {words(x[:2])}")
    need(first in (None, (x[1], size)), f"first wants {x[1]} {size}")


@rule
def rank(x: Shape, label: Shape, y: Shape, axis: int) -> Mapping[str, Any]:
    positions = math.prod(x) // x[_axis(axis, len(x))]
    need(math.prod(label) == positions, f"label wants {positions} values, got {words(label)}")
    return {"y": positions}


@rule
def topk(x: Shape, values: Shape, index: Shape, axis: int) -> Mapping[str, Any]:
    at = _axis(axis, len(x))
    count = values[at] if len(values) == len(x) else 0
    need(0 < count <= x[at], f"values wants up to {x[at]} entries along axis {at}, got {words(values)}")
    shape = (*x[:at], count, *x[at + 1 :])
    return {"values": shape, "index": shape}


__all__ = ["RULES", "check"]
