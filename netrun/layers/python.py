"""Layers written as Python classes: type Python, with the methods of pycaffe's Layer."""

from __future__ import annotations

import importlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, NetrunError
from ..kernels import HostStep, Kernels
from ..types import Shape, Spec
from .base import Count, Layer

Array = npt.NDArray[Any]
METHODS = ("setup", "reshape", "forward", "backward")
"""What a user's class has; without ``backward`` no gradient passes."""


class PythonBlob:
    """A bottom, top or parameter as a user's class sees it; ``data`` and ``diff`` are NumPy arrays.

    ``reshape`` is for tops, in ``setup`` and ``reshape``; in ``forward`` and ``backward`` shapes are fixed.
    """

    def __init__(self, shape: Sequence[int], dtype: str, fetch: Callable[[], Array] | None = None) -> None:
        self._shape, self._dtype, self._fetch = tuple(shape), dtype, fetch
        self._data: Array | None = None
        self._diff: Array | None = None
        self._fixed = False

    @classmethod
    def over(cls, data: Array, diff: Array | None = None, *, writable: bool = False) -> PythonBlob:
        """A blob on arrays that are there."""
        blob = cls(data.shape, data.dtype.name)
        blob._data, blob._diff, blob._fixed = data, diff, True
        if not writable:
            blob._data = data.view()
            blob._data.flags.writeable = False
        return blob

    @property
    def shape(self) -> Shape:
        """Length of every axis."""
        return self._shape

    @property
    def data(self) -> Array:
        """The values. Those of a bottom cannot be written."""
        if self._data is None:
            self._data = self._fetch() if self._fetch else np.zeros(self._shape, self._dtype)
        return self._data

    @property
    def diff(self) -> Array:
        """The gradient; where none is asked for, memory of no consequence."""
        if self._diff is None:
            self._diff = np.zeros(self._shape, self._dtype)
        return self._diff

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self._shape)

    @property
    def num(self) -> int:
        """Length of the first of up to four axes."""
        return self._axis(0)

    @property
    def channels(self) -> int:
        """Length of the second of up to four axes."""
        return self._axis(1)

    @property
    def height(self) -> int:
        """Length of the third of up to four axes."""
        return self._axis(2)

    @property
    def width(self) -> int:
        """Length of the fourth of up to four axes."""
        return self._axis(3)

    def _axis(self, axis: int) -> int:
        return self._shape[axis] if axis < len(self._shape) else 1

    def reshape(self, *shape: int) -> None:
        """Another shape; the values are zeros then.

        Raises:
            ValueError: the shape is fixed by now, or has a negative axis.
        """
        wanted = tuple(int(n) for n in shape)
        if wanted == self._shape:
            return
        if self._fixed:
            raise ValueError(f"the shape is {self._shape} by now; {wanted} is to be said in reshape()")
        if any(n < 0 for n in wanted):
            raise ValueError(f"{wanted} is no shape")
        self._shape, self._data, self._diff = wanted, None, None


class PythonBlobs:
    """The parameters of a user's layer, ``self.blobs``: ``add_blob`` in ``setup`` makes one."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._blobs: list[PythonBlob] = []

    def add_blob(self, *shape: int) -> PythonBlob:
        """One more trained parameter of that shape. What ``setup`` writes into its data is its first value."""
        self._blobs.append(PythonBlob(shape, self._dtype))
        return self._blobs[-1]

    def bind(self, blobs: Sequence[PythonBlob]) -> None:
        """Put these in place: the values and gradients of this pass."""
        self._blobs[:] = blobs

    def __len__(self) -> int:
        return len(self._blobs)

    def __getitem__(self, i: int) -> PythonBlob:
        return self._blobs[i]

    def __iter__(self) -> Iterator[PythonBlob]:
        return iter(self._blobs)


class PythonLayer:
    """What a layer in Python may derive from; any class with these methods will do.

    ``param_str`` is the text from the prototxt, ``phase`` 0 in training and 1 otherwise, ``blobs`` the parameters.
    """

    param_str: str = ""
    phase: int = 1
    blobs: PythonBlobs

    def setup(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Called once: read param_str, add parameters."""

    def reshape(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Called before every forward: give every top its shape."""
        raise NotImplementedError

    def forward(self, bottom: Sequence[PythonBlob], top: Sequence[PythonBlob]) -> None:
        """Write every top's data."""
        raise NotImplementedError

    def backward(self, top: Sequence[PythonBlob], propagate_down: Sequence[bool], bottom: Sequence[PythonBlob]) -> None:
        """Write bottom[i].diff where propagate_down[i], and the diff of every parameter."""
        raise NotImplementedError


class Python(Layer):
    """y = what the class python_param.layer of the module python_param.module computes

    Bottoms and tops: any number, of any shapes that the class wants. It has the methods of pycaffe's Layer: setup and
    reshape(bottom, top), forward(bottom, top), backward(top, propagate_down, bottom); without backward no gradient
    passes. reshape is called before every forward, and the tops may have another shape each time. Tops and gradients
    are zeros before the class writes them; a bottom's data cannot be written (in place, the top holds a copy of it).
    self.blobs are trained parameters; their diff starts at zero in every backward. The module is looked for next to
    the prototxt too.
    """

    param = "python_param"
    bottoms: ClassVar[Count] = (0, None)
    tops: ClassVar[Count] = (0, None)
    varying = True
    user: Any = None
    """The user's object."""
    _values: list[Array]
    _shapes: list[Shape]

    def setup(self, bottom: Sequence[Spec]) -> Sequence[Spec]:
        dtype, before = self.context.dtype, self.context.before
        bottoms = [PythonBlob(b.shape, b.dtype) for b in bottom]
        tops = [PythonBlob((), dtype) for _ in self.message.top]
        if isinstance(before, Python):
            self.user, self._values = before.user, before._values
        else:
            self.user = self._new_user()
            self._call("setup", bottoms, tops)
            self._values = [np.array(blob.data) for blob in self.user.blobs]
        for i, value in enumerate(self._values):
            self._declare(f"blob{i}", value.shape, "learned", None, value)
        if self.context.measured is not None:
            self._shapes = list(self.context.measured)
        else:
            self._call("reshape", bottoms, tops)
            self._shapes = [top.shape for top in tops]
        return [self.spec(shape) for shape in self._shapes]

    def measure(self, values: Callable[[int], Any]) -> Sequence[Shape]:
        bottoms = [PythonBlob(b.shape, b.dtype, partial(values, i)) for i, b in enumerate(self.bottom_specs)]
        # A class may give its tops their shapes once, in setup: they keep the shapes they have.
        tops = [PythonBlob(shape, self.context.dtype) for shape in self._shapes]
        self._call("reshape", bottoms, tops)
        return [top.shape for top in tops]

    def forward(self, k: Kernels, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        own = [getattr(self, d.name) for d in self.declared]
        grad = self._backward if hasattr(self.user, "backward") else None
        k.host([*bottom, *own], list(top), fn=self._forward, grad=grad)

    def _forward(self, xs: Sequence[Array], ys: Sequence[Array]) -> None:
        count = len(self.bottom_specs)
        names = list(self.message.bottom)
        for i, (name, y) in enumerate(zip(self.message.top, ys, strict=True)):
            y[...] = xs[i] if names[i : i + 1] == [name] and xs[i].shape == y.shape else 0
        self.user.blobs.bind([PythonBlob.over(x, writable=True) for x in xs[count:]])
        tops = [PythonBlob.over(y, writable=True) for y in ys]
        self._call("forward", [PythonBlob.over(x) for x in xs[:count]], tops)

    def _backward(self, wanted: tuple[bool, ...]) -> HostStep:
        count, inputs = len(self.bottom_specs), len(wanted)

        def step(given: Sequence[Array], targets: Sequence[Array]) -> None:
            for target in targets:
                target[...] = 0
            remaining = iter(targets)
            diffs = [next(remaining) if want else None for want in wanted]
            xs, rest = given[:inputs], given[inputs:]
            ys, dys = rest[: len(rest) // 2], rest[len(rest) // 2 :]
            pairs = zip(xs, diffs, strict=True)
            blobs = [PythonBlob.over(x, diff, writable=i >= count) for i, (x, diff) in enumerate(pairs)]
            self.user.blobs.bind(blobs[count:])
            tops = [PythonBlob.over(y, dy) for y, dy in zip(ys, dys, strict=True)]
            self._call("backward", tops, list(wanted[:count]), blobs[:count])

        return step

    # ------------------------------------------------------------------------------------------------ the user's class
    def _new_user(self) -> Any:
        user = self._load()
        try:
            made = user()
        except Exception as error:
            raise self._explained("__init__", error) from error
        made.param_str, made.phase, made.blobs = self.p.param_str, self.context.phase, PythonBlobs(self.context.dtype)
        missing = [name for name in METHODS[:3] if not callable(getattr(made, name, None))]
        if missing:
            what = f"the class {self.p.layer} of {self.p.module} has no method {', '.join(missing)}"
            self.fail(what, at="layer", hint=f"a layer in Python has the methods {', '.join(METHODS)}")
        return made

    def _load(self) -> Any:
        if not self.p.module or not self.p.layer:
            missing = "layer" if self.p.module else "module"
            self.fail(f"has no {missing}", hint='write python_param { module: "my_layers" layer: "MyLayer" }, say')
        beside = [os.path.abspath(self.context.folder or "."), os.getcwd()]
        old = list(sys.path)
        sys.path[:0] = beside
        try:
            module = importlib.import_module(self.p.module)
        except ModuleNotFoundError as error:
            if error.name and self.p.module.split(".")[0] == error.name.split(".")[0]:
                hint = f"looked in {beside[0]}, the working directory and PYTHONPATH"
                self.fail(f'there is no Python module "{self.p.module}"', at="module", hint=hint)
            raise self._explained("import", error) from error
        except Exception as error:
            raise self._explained("import", error) from error
        finally:
            sys.path[:] = old
        found = getattr(module, self.p.layer, None)
        if found is None:
            self.fail(f'the module "{self.p.module}" has no class "{self.p.layer}"', at="layer")
        return found

    def _call(self, method: str, *given: Any) -> None:
        try:
            getattr(self.user, method)(*given)
        except NetrunError:
            raise
        except Exception as error:
            raise self._explained(method, error) from error

    def _explained(self, method: str, error: Exception) -> ConfigError:
        """The error of a user's class as netrun's: it names the layer, and the line in the user's file."""
        frames = traceback.extract_tb(error.__traceback__)
        module = sys.modules.get(self.p.module)
        theirs = [f for f in frames if module is not None and f.filename == getattr(module, "__file__", None)]
        notes = [f"at {f.filename}:{f.lineno}, in {f.name}: {f.line}" for f in (theirs or frames)[-1:]]
        if isinstance(error, SyntaxError):
            notes = [f"at {error.filename}:{error.lineno}"]
        what = f"{self.p.layer}.{method}" if method != "import" else f"import {self.p.module}"
        text = str(error) or "no message"
        return ConfigError(
            f"{self.name} ({self.type}): {what} fails: {type(error).__name__}: {text}", self.context.locate(), notes
        )


__all__ = ["Python", "PythonBlob", "PythonBlobs", "PythonLayer"]
