"""The vocabulary: every operation a program may hold, as one signature. This file is the only place that says it.

The annotation of an argument says what the kernel does with it: ``In`` is read, ``Out`` is written whole (every
element, whatever was in it), ``InOut`` is read and written. A name in the plural is a tuple of them. ``Maybe`` may be
None. Keyword-only arguments are attributes: plain values, fixed when the program is made.

Shapes are written as in a paper: N batch, C channels, S the spatial axes (any number of them). All arithmetic is in the
element type of the outputs; index outputs are int32. Labels and indices arrive as numbers of any type and are
truncated towards zero, as Caffe does.

A layer's ``forward`` is called with an object of this class: a :class:`Recorder` while a net is compiled, the
reference device's own object in a unit test. ``view`` and ``temp`` are no kernels: they name memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from .expression import Rule
from .types import Shape, Spec, Window

In = Annotated[Any, "r"]
Out = Annotated[Any, "w"]
InOut = Annotated[Any, "rw"]
Ins = Annotated[Any, "r", "many"]
Outs = Annotated[Any, "w", "many"]
InOuts = Annotated[Any, "rw", "many"]
Maybe = Annotated[Any, "r", "maybe"]

HostStep = Callable[[Sequence[Any], Sequence[Any]], None]
"""Python on NumPy arrays: reads those of the first sequence, writes every element of those of the second."""


class Kernels:
    """One method a kernel. See the module's docstring for the conventions."""

    _HELPERS: ClassVar[frozenset[str]] = frozenset({"view", "temp"})

    # ------------------------------------------------------------------------------------------------- no kernels
    def view(self, x: Any, shape: Sequence[int]) -> Any:
        """The same elements under another shape (one -1 allowed); costs nothing."""
        raise NotImplementedError

    def temp(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Any:
        """Memory for a value that lives between calls of one layer (forward and backward)."""
        raise NotImplementedError

    # ----------------------------------------------------------------------------------------------------- memory
    def fill(self, y: Out, *, value: float) -> None:
        """y = value"""
        raise NotImplementedError

    def copy(self, x: In, y: Out) -> None:
        """y = x, of the same count, converted to y's element type; the shapes may differ."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ elementwise
    def pointwise(self, xs: Ins, y: Out, *, expr: str) -> None:
        """y = expr over the inputs a, b, c ... (netrun.expression), which broadcast to y's shape as in NumPy."""
        raise NotImplementedError

    def reduce(self, xs: Ins, y: Out, *, expr: str, how: str, axes: Shape) -> None:
        """y = sum (how="sum") or max (how="max") of expr over the given axes of the inputs' broadcast shape.

        y has the remaining axes; axes of length 1 may be kept or left out. Sums accumulate in float64 on the host
        and in at least float32 elsewhere.
        """
        raise NotImplementedError

    def update(self, xs: Ins, vs: InOuts, *, rule: Rule) -> None:
        """Run the assignments of ``rule``: inputs xs broadcast to the variables vs, which change in place.

        This kernel and ``update_rows`` alone write what they read: parameters, solver history, running statistics.
        """
        raise NotImplementedError

    def update_rows(self, index: In, xs: Ins, vs: InOuts, *, rule: Rule) -> None:
        """``update`` of row index[i] of the variables from row i of the inputs, for each i; all other rows stay.

        index: N, no row twice; negative ones are passed over, those outside raise DataError on the host devices.
        vs: tables R.. of one shape. xs: N R[1:], or one number.
        """
        raise NotImplementedError

    # --------------------------------------------------------------------------------------------------- products
    def gemm(self, a: In, b: In, c: Maybe, y: Out, *, ta: bool, tb: bool) -> None:
        """y = op(a) op(b) + c, op = transpose of the last two axes where ta, tb; c broadcasts over the rows (M x N).

        Leading axes before the last two are a batch; a batch of one broadcasts.
        """
        raise NotImplementedError

    def conv(self, x: In, w: In, b: Maybe, y: Out, *, window: Window, groups: int) -> None:
        """Cross-correlation. x: N C S, w: K C/groups kernel, b: K, y: N K S'.

        y[n,k,s] = b[k] + sum over c, i of w[k,c,i] x[n, c, s*stride - pad + i*dilation], zero outside x.
        """
        raise NotImplementedError

    def conv_grad_x(self, w: In, dy: In, dx: Out, *, window: Window, groups: int) -> None:
        """Adjoint of conv in x, also the forward pass of a transposed convolution. dy: N K S', dx: N C S."""
        raise NotImplementedError

    def conv_grad_w(self, x: In, dy: In, dw: Out, *, window: Window, groups: int) -> None:
        """Adjoint of conv in w. x: N C S, dy: N K S', dw: K C/groups kernel."""
        raise NotImplementedError

    def im2col(self, x: In, y: Out, *, window: Window) -> None:
        """x: N C S to y: N (C * kernel) S': column (c, i) at s holds x[n, c, s*stride - pad + i*dilation]."""
        raise NotImplementedError

    def col2im(self, y: In, x: Out, *, window: Window) -> None:
        """Adjoint of im2col: overlapping entries add."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------------- pooling
    def pool_max(self, x: In, y: Out, index: Out, *, window: Window) -> None:
        """Maximum of each window of x: N C S. Padding never wins, the first of equal values in row-major order does.

        index: int32, position of the winner within its own plane. A window wholly outside x gives the lowest finite
        number and index -1.
        """
        raise NotImplementedError

    def pool_max_grad(self, index: In, dy: In, dx: Out, *, window: Window) -> None:
        """dx[index] += dy, plane by plane; index -1 is dropped. Also the adjoint of pool_random."""
        raise NotImplementedError

    def pool_avg(self, x: In, y: Out, *, window: Window, count: str) -> None:
        """Mean of each window of x, padding counted as zeros.

        The divisor: count="padded", the part of the window inside [-pad, size + pad_end), at least one (Caffe);
        count="inside", the part inside x; count="kernel", the whole window. Where the divisor is 0 the result is 0.
        """
        raise NotImplementedError

    def pool_avg_grad(self, dy: In, dx: Out, *, window: Window, count: str) -> None:
        """Adjoint of pool_avg: dy / divisor spread over each window."""
        raise NotImplementedError

    def pool_random(self, x: In, noise: In, y: Out, index: Out, *, window: Window) -> None:
        """Stochastic pooling of x >= 0: one element of each window, drawn with probability x / sum of the window.

        noise in [0, 1) has y's shape: the first element in row-major order whose running sum exceeds noise * sum
        is taken; a window of zeros gives 0 and the index of its last element.
        """
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------- normalisation
    def lrn(self, x: In, y: Out, scale: Out, *, size: int, alpha: float, beta: float, k: float) -> None:
        """scale = k + alpha/size * (sum of x^2 over ``size`` channels around each), y = x * scale^-beta. x: N C S."""
        raise NotImplementedError

    def lrn_grad(
        self, x: In, y: In, scale: In, dy: In, dx: Out, *, size: int, alpha: float, beta: float, k: float
    ) -> None:
        """Adjoint of lrn: dx = dy scale^-beta - 2 alpha beta/size * x * (sum over the channels of dy y/scale)."""
        raise NotImplementedError

    def normalize(self, x: In, y: Out, mean: Out, var: Out, *, axes: Shape, eps: float) -> None:
        """mean and (biased) variance of x over ``axes``; y = (x - mean) / sqrt(var + eps). mean, var keep axes as 1."""
        raise NotImplementedError

    def normalize_grad(self, y: In, var: In, dy: In, dx: Out, *, axes: Shape, eps: float) -> None:
        """Adjoint of normalize in x: dx = (dy - mean(dy) - y * mean(dy y)) / sqrt(var + eps), means over ``axes``."""
        raise NotImplementedError

    def softmax(self, x: In, y: Out, *, axis: int) -> None:
        """y = exp(x - max) / sum of it, along ``axis``."""
        raise NotImplementedError

    def softmax_grad(self, y: In, dy: In, dx: Out, *, axis: int) -> None:
        """dx = y * (dy - sum of dy y along axis)."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------------------------- attention
    def attention(
        self, q: In, k: In, v: In, lengths: Maybe, mask: Maybe, y: Out, lse: Out, *, scale: float, causal: bool
    ) -> None:
        """y[n,h,i] = sum over j of p[j] v[n,h,j], p = softmax over j of scale * (q[n,h,i] . k[n,h,j]), over the keys j
        that query i may look at; lse[n,h,i] = log of the sum of exp of those scores.

        q: N H Tq D, k: N H Tk D, v: N H Tk Dv, y: N H Tq Dv, lse: N H Tq. A query may look at the first lengths[n,h,i]
        keys (N H Tq, each may be 1), where mask[n,h,i,j] is not 0 (N H Tq Tk, each may be 1), and, with ``causal``, up
        to its own step, the queries being the last Tq of Tk steps: j <= i + Tk - Tq. One that may look at nothing gives
        0, and -infinity. What it may not look at never reaches it, were it no number; what it may look at and is no
        finite number makes it none.
        """
        raise NotImplementedError

    def attention_grad(
        self, q: In, k: In, v: In, lengths: Maybe, mask: Maybe, y: In, lse: In, dy: In, dlse: Maybe,
        dq: Out, dk: Out, dv: Out, *, scale: float, causal: bool,
    ) -> None:  # fmt: skip
        """Adjoint of attention in q, k and v, from the gradients of y and (absent: zeros) of lse.

        With p = exp(scale * (q . k) - lse) again, each row divided by its sum (lse of large scores has no digits left
        for that): dv = p' dy, ds = p * (dy v' - sum of dy y + dlse), dq = scale * ds k, dk = scale * ds' q.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------- loss
    def softmax_nll(
        self, x: In, label: In, prob: Out, loss: Out, norm: Out, *, axis: int, ignore: int | None, normalize: str
    ) -> None:
        """prob = softmax(x); loss = sum of -log(max(prob[label], smallest normal float)) over the positions / norm.

        x: outer.., K, inner..; label: one entry a position (outer x inner). Positions whose label is ``ignore`` do not
        count. norm, at least 1: "valid" positions that count, "full" all positions, "batch" the outer size, "none" 1.
        Labels outside 0..K-1 raise DataError on the host devices.
        """
        raise NotImplementedError

    def softmax_nll_grad(
        self, prob: In, label: In, norm: In, dloss: In, dx: Out, *, axis: int, ignore: int | None
    ) -> None:
        """dx = (prob - onehot(label)) * dloss / norm, 0 at ignored positions."""
        raise NotImplementedError

    def ctc(self, x: In, label: In, steps: In, count: In, loss: Out, slope: Out, *, blank: int) -> None:
        """Connectionist temporal classification (Graves et al. 2006): loss[n] = -log of the probability, by
        softmax(x), of all ways through the first steps[n] steps that give the first count[n] labels of sequence n.

        x: T N K, label: N L, steps, count and loss: N. A way gives its classes without the repetitions and then
        without ``blank``. slope: T N K is the gradient of the losses by x, 0 behind the last step. A sequence whose
        labels do not fit into its steps gives 0 and no gradient. Labels outside 0..K-1 raise DataError on the host
        devices.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------ shape
    def concat(self, xs: Ins, y: Out, *, axis: int) -> None:
        """y = the xs one after another along ``axis``."""
        raise NotImplementedError

    def split(self, x: In, ys: Outs, *, axis: int) -> None:
        """The ys = x cut along ``axis``, in order."""
        raise NotImplementedError

    def slice(self, x: In, y: Out, *, begin: Shape) -> None:
        """y = the part of x that starts at ``begin`` (one entry an axis) and has y's shape."""
        raise NotImplementedError

    def place(self, x: In, y: Out, *, begin: Shape) -> None:
        """y = zeros with x placed at ``begin``. Adjoint of slice."""
        raise NotImplementedError

    def transpose(self, x: In, y: Out, *, axes: Shape) -> None:
        """y = x with axis i of y being axis axes[i] of x."""
        raise NotImplementedError

    def gather(self, x: In, index: In, y: Out) -> None:
        """y[i..] = x[index[i..]], whole rows: x: R.., index: I.., y: I.. R[1:]. Indices outside raise DataError."""
        raise NotImplementedError

    def scatter_add(self, index: In, x: In, y: Out) -> None:
        """y = zeros; y[index[i..]] += x[i..]: adjoint of gather, but negative indices drop their rows."""
        raise NotImplementedError

    def merge_rows(self, index: In, x: In, rows: Out, y: Out) -> None:
        """The rows of x that have the same index, added up in their order at the place of the first of them.

        index: I.., x: I.. W.., rows: N int32 and y: N W.. with N entries of index in all. At the first entry i with an
        index, rows[i] = that index and y[i] = the sum; at the others, and where the index is negative, rows[i] = -1 and
        y[i] = 0. With ``update_rows`` it is what scatter_add and ``update`` are for a whole table.
        """
        raise NotImplementedError

    # --------------------------------------------------------------------------------------------------- sequences
    # T steps of N streams side by side. A walk goes from step 0 to T-1, with ``reverse`` from T-1 to 0; "before" is the
    # step the walk came from. cont (T N, absent: ones) multiplies the state before at each step: 0 where a stream
    # starts anew. The state before the walk's first step is ``first`` (and ``first_cell``), N R each; absent: zeros.
    # No gradient passes to cont.
    def rnn(self, x: In, w: In, cont: Maybe, first: Maybe, y: Out, *, act: str, reverse: bool) -> None:
        """y[t] = act(x[t] + w (cont[t] y[before])), act "tanh" or "relu". x, y: T N D, w: D D."""
        raise NotImplementedError

    def rnn_grad(self, w: In, cont: Maybe, y: In, dy: In, dx: Out, dfirst: Out, *, act: str, reverse: bool) -> None:
        """Adjoint of rnn in x and first (N D)."""
        raise NotImplementedError

    def lstm(
        self, x: In, w: In, peep: Maybe, proj: Maybe, cont: Maybe, first: Maybe, first_cell: Maybe,
        y: Out, cell: Out, gates: Out, *, reverse: bool,
    ) -> None:  # fmt: skip
        """(i, f, o, g) = x[t] + w h, h = cont[t] y[before], c0 = cont[t] cell[before];
        i, f += peep[0] c0, peep[1] c0; cell[t] = sigmoid(f) c0 + sigmoid(i) tanh(g);
        o += peep[2] cell[t]; m = sigmoid(o) tanh(cell[t]); y[t] = proj m, or m.

        x: T N 4D, w: 4D R, peep: 3 D, proj: R D (R = D without it), y: T N R, cell: T N D. gates: T N 4D holds
        sigmoid(i), sigmoid(f), sigmoid(o), tanh(g).
        """
        raise NotImplementedError

    def lstm_grad(
        self, w: In, peep: Maybe, proj: Maybe, cont: Maybe, first_cell: Maybe, cell: In, gates: In, dy: In,
        dcell: Maybe, dx: Out, dout: Out, dfirst: Out, dfirst_cell: Out, *, reverse: bool,
    ) -> None:  # fmt: skip
        """Adjoint of lstm in x, first and first_cell, from the gradients of y and (absent: zeros) of cell.

        dout: T N R is the whole gradient of y: dy and what the step after adds to it.
        """
        raise NotImplementedError

    def gru(self, x: In, w: In, b: Maybe, cont: Maybe, first: Maybe, y: Out, gates: Out, *, reverse: bool) -> None:
        """h = cont[t] y[before], (a, c, u) = w h + (0, 0, b), r = sigmoid(x[t].r + a), z = sigmoid(x[t].z + c),
        n = tanh(x[t].n + r u), y[t] = (1 - z) n + z h: the reset gate acts after the product ("linear before reset").

        x: T N 3D in the order r z n, w: 3D D, b: D, y: T N D. gates: T N 4D holds r, z, n, u.
        """
        raise NotImplementedError

    def gru_grad(
        self, w: In, cont: Maybe, first: Maybe, y: In, gates: In, dy: In, dx: Out, du: Out, dfirst: Out, *,
        reverse: bool,
    ) -> None:  # fmt: skip
        """Adjoint of gru in x and first; du: T N 3D is the gradient of the product w h."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------------- metrics
    def rank(self, x: In, label: In, y: Out, *, axis: int) -> None:
        """y = at each position the number of classes other than the label whose score is at least the label's.

        x: outer.., K, inner..; label and y: one entry a position. A label outside 0..K-1 gives K.
        """
        raise NotImplementedError

    def topk(self, x: In, values: Out, index: Out, *, axis: int) -> None:
        """The largest entries along ``axis`` in falling order and their positions; ties go to the larger position.

        How many is the length of the outputs along that axis. index has the element type of its tensor.
        """
        raise NotImplementedError

    # ----------------------------------------------------------------------------------------------------- random
    def random(self, counter: In, y: Out, *, how: str, p: float, seed: int, stream: int) -> None:
        """how="uniform": numbers in [0, 1). how="bernoulli": 1 with probability p, else 0.

        Element i is word i of Philox (netrun.random) with this seed, stream and the value of ``counter`` (one int64).
        Bernoulli is uniform < p.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------- host
    def host(self, xs: Ins, ys: Outs, *, fn: HostStep, grad: Callable[[tuple[bool, ...]], HostStep] | None) -> None:
        """fn(xs, ys): a step in Python, on host arrays that hold the values; it writes every element of every y.

        It may have effects that no tensor shows (a file, the state of a user's object), so it is never left out, and it
        cuts a captured graph in two. Its gradient is another such step, (xs, ys, dys) -> the wanted dxs, made by
        grad(wanted), a truth value for each x; None: no gradient passes. An error is fn's own NetrunError.
        """
        raise NotImplementedError


# ------------------------------------------------------------------------------------------------------- as a table
@dataclass(frozen=True)
class Argument:
    """One tensor argument of a kernel."""

    name: str
    role: str  # "r", "w" or "rw"
    many: bool
    maybe: bool


@dataclass(frozen=True)
class Op:
    """One kernel as data. ``over``: of a device's own kernel, what ``IN_PLACE`` says of those here."""

    name: str
    arguments: tuple[Argument, ...]
    attributes: tuple[str, ...]
    over: tuple[str, str] | None = None

    @property
    def changes(self) -> bool:
        """Whether it changes something that it reads."""
        return any(argument.role == "rw" for argument in self.arguments)

    def __str__(self) -> str:
        return self.name


def _table() -> dict[str, Op]:
    table = {}
    for name, function in vars(Kernels).items():
        if name.startswith("_") or name in Kernels._HELPERS:
            continue
        found, attributes = [], []
        for parameter in list(inspect.signature(function, eval_str=True).parameters.values())[1:]:
            if parameter.kind is parameter.KEYWORD_ONLY:
                attributes.append(parameter.name)
                continue
            marks = parameter.annotation.__metadata__
            found.append(Argument(parameter.name, marks[0], "many" in marks, "maybe" in marks))
        table[name] = Op(name, tuple(found), tuple(attributes))
    return table


OPS: dict[str, Op] = _table()
"""Every kernel by name."""

IN_PLACE: dict[str, tuple[str, str]] = {
    "pointwise": ("xs", "y"),
    "copy": ("x", "y"),
    "softmax": ("x", "y"),
    "softmax_grad": ("dy", "dx"),
    "normalize": ("x", "y"),
    "normalize_grad": ("dy", "dx"),
}
"""Kernels whose output may lie over an input of the same shape and type that nobody reads afterwards."""

CHANGES: frozenset[str] = frozenset({"update", "update_rows"})
"""Kernels that change what they read: parameters, history, statistics, states."""

EFFECTS: frozenset[str] = CHANGES | {"host"}
"""Kernels that do something even where nobody reads what they write."""

ZERO = Spec(())
"""The spec of one float32 number."""
