"""The door to oneDNN: its C library found and loaded, and the few calls of its C interface that netrun makes.

The library comes with the wheel ``onednn-cpu-gomp`` (Linux on x86-64). :func:`library` gives it, or None where it is
not there, cannot be loaded, or the environment says ``NETRUN_CPU=numpy``; :func:`reason` says why in one line. The
numbers below are those of the C headers of version 3; another major version is refused.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import threading
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from .waiting import waiting

WHEEL = "onednn-cpu-gomp"
MAJOR = 3
MAX_AXES = 12
Dims = c_int64 * MAX_AXES
BODY = ctypes.CFUNCTYPE(None, c_void_p)
"""A function that several threads run at the same time."""

# ----------------------------------------------------------------------------------------------- numbers of the headers
BF16, F32, S32, U8 = 2, 3, 4, 6
TYPES = {"float32": F32, "int32": S32, "uint8": U8}
ANY = 1
LAST = {3: 15, 4: 22, 5: 33}
"""Format tags of N S C, by number of axes."""
BLOCKED = {8: {3: 69, 4: 102, 5: 142}, 16: {3: 56, 4: 78, 5: 121}}
"""Format tags of N C/block S block, by block and number of axes."""

TRAINING, INFERENCE, BACKWARD_DATA, BACKWARD = 64, 96, 160, 128
DIRECT = 1
POOL_MAX, POOL_PADDED, POOL_INSIDE = 511, 767, 1023
LRN_ACROSS = 2815
USE_GLOBAL, USE_SCALE, USE_SHIFT, FUSE_RELU = 1, 2, 4, 8
RELU, TANH, SQRT, LINEAR, EXP, RELU_BY_OUTPUT = 32, 33, 37, 38, 42, 256
ADD, MUL, MAX, MIN, DIV, SUB = 131056, 131057, 131058, 131059, 131060, 131061
SUM, REDUCE_MAX = 196596, 196594
SOFTMAX = 196608

SRC, SRC_1, DST, WEIGHTS, BIAS, MEAN, VARIANCE, WORKSPACE, SCRATCHPAD = 1, 2, 17, 33, 41, 49, 50, 64, 80
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS = 129, 145, 161, 169
SCALE, SHIFT, DIFF_SCALE, DIFF_SHIFT = 51, 52, 255, 256
MANY = 1024
"""First of the arguments of a kernel with any number of sources."""


def post_op(index: int) -> int:
    """The argument that holds the second operand of post-operation ``index``."""
    return 32768 * (index + 1) | SRC_1


_HARD = 2
"""libgomp's number for giving up all threads."""

_Q_IMPL = 8
_Q_ARGUMENT = 255
_Q_MD = {SRC: 129, DIFF_SRC: 130, WEIGHTS: 131, DIFF_WEIGHTS: 132, DST: 133, DIFF_DST: 134, WORKSPACE: 135,
         SCRATCHPAD: 136}  # fmt: skip
_Q_STRIDES, _Q_PADDED, _Q_BLOCKS, _Q_BLOCK_SIZES, _Q_BLOCK_AXES = 14, 260, 263, 264, 265


class Unsupported(Exception):  # noqa: N818 (an answer, no error)
    """The library has no implementation of what was asked for."""


class ExecArg(ctypes.Structure):
    """One argument of an execution: its number and the memory."""

    _fields_ = (("arg", c_int), ("memory", c_void_p))


class Handle:
    """Owns one object of the library and destroys it."""

    __slots__ = ("_destroy", "keep", "value")

    def __init__(self, value: Any, destroy: Any, keep: Any = None) -> None:
        self.value, self._destroy, self.keep = value, destroy, keep

    def __del__(self) -> None:
        if self.value and self._destroy is not None:
            self._destroy(self.value)


class Library:
    """The loaded library with one engine and one stream.

    Raises:
        OSError: the file or a library it needs (libgomp) cannot be loaded.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._c = ctypes.CDLL(path)
        version = self._version()
        if version[0] != MAJOR:
            raise OSError(f"{path} is version {'.'.join(map(str, version))}, wanted {MAJOR}.x")
        self.version = ".".join(map(str, version))
        self.formats: list[tuple[Handle, tuple[int, ...]]] = []
        """Descriptions, with their lengths, of formats that only have a number: see layouts.packed."""
        self._c.dnnl_primitive_desc_query_md.restype = c_void_p
        self._c.dnnl_memory_desc_get_size.restype = c_size_t
        self.execute = self._c.dnnl_primitive_execute
        self.execute.argtypes = (c_void_p, c_void_p, c_int, c_void_p)
        self.execute.restype = _done
        self.threads, self.use_threads = self._c.omp_get_max_threads, self._c.omp_set_num_threads  # of its libgomp
        self.engine, self.stream = c_void_p(), c_void_p()
        self._check(self._c.dnnl_engine_create(byref(self.engine), 1, c_size_t(0)), "engine")
        self._check(self._c.dnnl_stream_create(byref(self.stream), self.engine, 1), "stream")
        pause = getattr(self._c, "omp_pause_resource_all", None)
        if pause is not None and hasattr(os, "register_at_fork"):
            # A child has no threads but the one that forked, and libgomp would wait for the others for ever: they end
            # before the fork, and both processes start new ones.
            os.register_at_fork(before=partial(pause, _HARD))

    def _version(self) -> tuple[int, int, int]:
        class Version(ctypes.Structure):
            _fields_ = (("major", c_int), ("minor", c_int), ("patch", c_int))

        self._c.dnnl_version.restype = POINTER(Version)
        found = self._c.dnnl_version().contents
        return found.major, found.minor, found.patch

    @cached_property
    def parallel(self) -> tuple[Callable[..., None], Callable[[], int]] | None:
        """(run(body, None, 0, 0), number of the calling thread): ``body``, a BODY, in all threads that the library's
        primitives use, by libgomp's own entries; None where the library has other threads."""
        try:
            run, number = self._c.GOMP_parallel, ctypes.PyDLL(self.path).omp_get_thread_num
        except AttributeError:
            return None
        run.argtypes, run.restype = (BODY, c_void_p, ctypes.c_uint, ctypes.c_uint), None
        return run, number

    @staticmethod
    def _check(status: int, what: str) -> None:
        if status:
            raise Unsupported(f"{what}: status {status}")

    # ------------------------------------------------------------------------------------------------ descriptions
    def _md(self, function: str, *args: Any) -> Handle:
        found = c_void_p()
        self._check(getattr(self._c, function)(byref(found), *args), function)
        return Handle(found, self._c.dnnl_memory_desc_destroy)

    def tagged(self, shape: Sequence[int], tag: int, dtype: int = F32) -> Handle:
        """Description of an array in one of the library's named formats (ANY: the library chooses)."""
        return self._md("dnnl_memory_desc_create_with_tag", len(shape), dims(shape), dtype, tag)

    def strided(self, shape: Sequence[int], strides: Sequence[int], dtype: int = F32) -> Handle:
        """Description of an array by its strides in elements."""
        return self._md("dnnl_memory_desc_create_with_strides", len(shape), dims(shape), dtype, dims(strides))

    def part(self, whole: Handle, shape: Sequence[int], begin: Sequence[int]) -> Handle:
        """Description of a box of an array; its memory starts where the whole's does."""
        return self._md("dnnl_memory_desc_create_submemory", whole.value, dims(shape), dims(begin))

    def same(self, a: Handle, b: Handle) -> bool:
        """Whether two descriptions say the same."""
        return bool(self._c.dnnl_memory_desc_equal(a.value, b.value))

    def nbytes(self, md: Handle) -> int:
        """Bytes of an array of that description."""
        return int(self._c.dnnl_memory_desc_get_size(md.value))

    def format(self, md: Handle, axes: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """(strides, sizes of the inner blocks, axes of the inner blocks) of a description."""
        strides, count, sizes, which = Dims(), c_int(), Dims(), Dims()
        for what, into in ((_Q_BLOCKS, count), (_Q_STRIDES, None), (_Q_BLOCK_SIZES, None), (_Q_BLOCK_AXES, None)):
            if into is not None:
                self._check(self._c.dnnl_memory_desc_query(md.value, what, byref(into)), "query")
                continue
            pointer = POINTER(c_int64)()
            self._check(self._c.dnnl_memory_desc_query(md.value, what, byref(pointer)), "query")
            home = {_Q_STRIDES: strides, _Q_BLOCK_SIZES: sizes, _Q_BLOCK_AXES: which}[what]
            for i in range(axes if what == _Q_STRIDES else count.value):
                home[i] = pointer[i]
        n = count.value
        return tuple(strides[:axes]), tuple(sizes[:n]), tuple(which[:n])

    # -------------------------------------------------------------------------------------------------- primitives
    def attributes(self, post: Sequence[tuple[Any, ...]] = ()) -> Handle:
        """Attributes of a primitive: scratch memory from the caller, and what is done to its result.

        post: ("eltwise", algorithm, alpha, beta), ("binary", algorithm, description) or ("sum", factor), in order.
        """
        found, operations = c_void_p(), c_void_p()
        self._check(self._c.dnnl_primitive_attr_create(byref(found)), "attributes")
        made = Handle(found, self._c.dnnl_primitive_attr_destroy)
        self._check(self._c.dnnl_primitive_attr_set_scratchpad_mode(found, 1), "scratchpad mode")
        if post:
            self._check(self._c.dnnl_post_ops_create(byref(operations)), "post-operations")
            owned = Handle(operations, self._c.dnnl_post_ops_destroy)
            for kind, *rest in post:
                if kind == "eltwise":
                    algorithm, alpha, beta = rest
                    status = self._c.dnnl_post_ops_append_eltwise(operations, algorithm, c_float(alpha), c_float(beta))
                elif kind == "binary":
                    status = self._c.dnnl_post_ops_append_binary(operations, rest[0], rest[1].value)
                else:
                    status = self._c.dnnl_post_ops_append_sum(operations, c_float(rest[0]), 0, 0)
                self._check(status, kind)
            self._check(self._c.dnnl_primitive_attr_set_post_ops(found, owned.value), "post-operations")
        return made

    def describe(self, kind: str, *args: Any) -> Handle:
        """A primitive's description: ``dnnl_<kind>_primitive_desc_create`` on these arguments.

        Handles, numbers, floats and dimensions go as C wants them; None is a null pointer.

        Raises:
            Unsupported: the library has no such primitive.
        """
        found = c_void_p()
        given = [self.engine] if kind != "reorder" else []
        status = getattr(self._c, f"dnnl_{kind}_primitive_desc_create")(byref(found), *given, *map(_c, args))
        self._check(status, kind)
        return Handle(found, self._c.dnnl_primitive_desc_destroy, args)

    def query(self, pd: Handle, what: int, index: int = 0) -> Handle:
        """Description of a primitive's argument, as the library wants it."""
        return self._query(pd, _Q_MD[what], index)

    def query_argument(self, pd: Handle, argument: int) -> Handle:
        """Description of any argument of an execution, by its number."""
        return self._query(pd, _Q_ARGUMENT, argument)

    def _query(self, pd: Handle, what: int, index: int) -> Handle:
        found = self._c.dnnl_primitive_desc_query_md(pd.value, what, index)
        if not found:
            raise Unsupported("no such argument")
        copy = c_void_p()
        self._check(self._c.dnnl_memory_desc_clone(byref(copy), c_void_p(found)), "clone")
        return Handle(copy, self._c.dnnl_memory_desc_destroy)

    def implementation(self, pd: Handle) -> str:
        """The name of the code that would run ("jit:avx512_core", "ref:any", ...)."""
        name = c_char_p()
        self._check(self._c.dnnl_primitive_desc_query(pd.value, _Q_IMPL, 0, byref(name)), "query")
        return (name.value or b"").decode()

    def advance(self, pd: Handle) -> bool:
        """Let a description stand for the library's next implementation of the same; False if there is none."""
        return not self._c.dnnl_primitive_desc_next_impl(pd.value)

    @cached_property
    def multiplies_halves(self) -> bool:
        """Whether this processor multiplies bfloat16 itself; elsewhere the library only imitates that."""
        x, w = self.tagged((1, 64, 14, 14), ANY, BF16), self.tagged((64, 64, 3, 3), ANY, BF16)
        one, zero = dims((1, 1)), dims((0, 0))
        try:
            pd = self.describe("convolution_forward", TRAINING, DIRECT, x, w, None, x, one, zero, one, one,
                               self.attributes())  # fmt: skip
        except Unsupported:
            return False
        return any(word in self.implementation(pd) for word in ("core_bf16", "amx"))

    def primitive(self, pd: Handle) -> Handle:
        """The primitive, compiled."""
        found = c_void_p()
        self._check(self._c.dnnl_primitive_create(byref(found), pd.value), "primitive")
        return Handle(found, self._c.dnnl_primitive_destroy)

    def memory(self, md: Handle, address: int) -> Handle:
        """Memory of that description at an address."""
        found = c_void_p()
        status = self._c.dnnl_memory_create(byref(found), md.value, self.engine, c_void_p(address))
        self._check(status, "memory")
        return Handle(found, self._c.dnnl_memory_destroy)


def _done(status: int) -> None:
    if status:
        raise RuntimeError(f"oneDNN: a primitive failed with status {status}")


def dims(values: Sequence[int]) -> Any:
    """The library's array of lengths, one an axis."""
    return Dims(*values)


def _c(value: Any) -> Any:
    if isinstance(value, Handle):
        return value.value
    if isinstance(value, float):
        return c_float(value)
    if isinstance(value, int):  # of a 32-bit one on the stack the upper half would be anything, and some are lengths
        return c_int64(value)
    if isinstance(value, (list, tuple)):
        return (c_void_p * len(value))(*(v.value.value for v in value))
    return value


# ------------------------------------------------------------------------------------------------------------- loading
_lock = threading.Lock()
_found: tuple[Library | None, str] | None = None


def library() -> Library | None:
    """The library, loaded when first asked for; None where it cannot be used."""
    return _load()[0]


def reason() -> str:
    """Why there is no library here, in a few words; "" where there is one."""
    return _load()[1]


def _load() -> tuple[Library | None, str]:
    global _found
    with _lock:
        if _found is None:
            _found = _search()
        return _found


def _search() -> tuple[Library | None, str]:
    if os.environ.get("NETRUN_CPU", "").lower() == "numpy":
        return None, "NETRUN_CPU=numpy"
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None, f"{WHEEL} is not installed"
    for file in files:
        if file.name == f"libdnnl.so.{MAJOR}":
            try:
                with waiting(cores()):
                    return Library(str(Path(str(file.locate())).resolve())), ""
            except (OSError, Unsupported) as error:
                return None, f"oneDNN cannot be loaded: {error}"
    return None, f"{WHEEL} holds no libdnnl.so.{MAJOR}"


@lru_cache(maxsize=1)
def cores() -> int:
    """Processor cores this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return max(1, os.cpu_count() or 1)
