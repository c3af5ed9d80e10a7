"""What to look at first on a GPU: each item on its own, a failure of one does not stop the next.

    python tools/gpu/checklist.py [--device cuda:0] [--properties FILE]

--properties writes the real description of the device, to replace tests/cuda/h200_sm90.json.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from layers_cuda import batch
from layers_cuda.blas import Product
from layers_cuda.device import describe
from layers_cuda.dnn import Problem
from layers_cuda.dnn_ctc import Ctc
from layers_cuda.launch import Kernel
from layers_cuda.plans import CAP
from layers_cuda.precision import PRECISIONS
from netrun.device import open_device
from netrun.errors import DeviceError
from netrun.kernels import OPS
from netrun.program import Call
from netrun.types import Spec, Tensor

HERE = Path(__file__).resolve().parent
PROPERTIES = HERE.parents[1] / "tests" / "cuda" / "h200_sm90.json"
ITEMS: list[tuple[str, Callable[[Any, argparse.Namespace], None]]] = []
RESNET = ((64, 56, 64, 3, 1), (256, 56, 128, 1, 2), (512, 7, 512, 3, 1), (3, 224, 64, 7, 2))


def item(what: str) -> Callable[[Any], Any]:
    """Add a function to the list."""

    def add(function: Any) -> Any:
        ITEMS.append((what, function))
        return function

    return add


def microseconds(device: Any, step: Callable[[], Any], rounds: int = 200) -> tuple[float, float]:
    """(host, GPU) microseconds of a step."""
    step()
    device.synchronize()
    first, last = device.xp.cuda.Event(), device.xp.cuda.Event()
    first.record(device.stream)
    start = time.perf_counter()
    for _ in range(rounds):
        step()
    host = time.perf_counter() - start
    last.record(device.stream)
    last.synchronize()
    return host / rounds * 1e6, float(device.xp.cuda.get_elapsed_time(first, last)) / rounds * 1e3


def report(device: Any, what: str, step: Callable[[], Any]) -> None:
    """Print what one call costs."""
    host, gpu = microseconds(device, step)
    print(f"  {what}: host {host:.2f} us, GPU {gpu:.2f} us")


def new(device: Any, *shape: int, dtype: str = "float32") -> Any:
    """A random array."""
    spec = Spec(shape, dtype)
    array = device.array(device.allocate(spec.nbytes), 0, spec)
    device.write(array, np.random.default_rng(0).standard_normal(shape).astype(dtype))
    return array


@item("versions; the real device properties against ours")
def _(device: Any, args: argparse.Namespace) -> None:
    print("\n".join(describe()))
    text = device.dnn.properties(device.index)
    if args.properties:
        args.properties.write_text(text)
    real, ours = json.loads(text), json.loads(PROPERTIES.read_text())
    for key in sorted({*real, *ours}):
        if real.get(key) != ours.get(key):
            print(f"  {key}: here {real.get(key)}, in h200_sm90.json {ours.get(key)}")


@item("cost of a launch, call by call and in a graph")
def _(device: Any, args: argparse.Namespace) -> None:
    x, y = new(device, 1024), device.array(device.allocate(2048), 0, Spec((1024,), "float16"))
    kernel = Kernel("precision", "narrow", (("STORAGE", "__half"),))
    step = device.launcher.step(kernel, 4, 256, [x, y.view(np.uint16), np.int64(1024)])
    report(device, "one kernel", step)
    many = device.capture([step] * 100)
    many()
    many()
    host, gpu = microseconds(device, many, 50)
    print(f"  100 kernels as a graph: host {host:.1f} us, GPU {gpu:.1f} us, {gpu / 100:.2f} us each")
    number = device.array(device.allocate(4), 0, Spec(()))
    report(device, "write a number", lambda: device.write(number, 1.0))
    report(device, "read a number", lambda: device.read(number))


@item("cuBLAS: error and speed of every precision, and in a graph")
def _(device: Any, args: argparse.Namespace) -> None:
    a, b, y = new(device, 2048, 1024), new(device, 1024, 2048), new(device, 2048, 2048)
    exact = device.read(a).astype("float64") @ device.read(b).astype("float64")
    for precision in PRECISIONS.values():
        step = device.blas.product(a, b, y, Product(2048, 2048, 1024, False, False), precision)
        step()
        error = float(np.abs(device.read(y) - exact).max())
        _, gpu = microseconds(device, step, 50)
        print(f"  {precision.name}: error {error:.1e}, {gpu:.1f} us, {2 * 2048**2 * 1024 / gpu / 1e6:.0f} TFLOP/s")
        graph = device.capture([step])
        graph()
        device.write(y, np.zeros((2048, 2048), "float32"))
        graph()
        assert float(np.abs(device.read(y) - exact).max()) <= error * 1.01, "the replay differs"


@item("cuBLASLt: a product with bias and ReLU at once, and by cuBLAS and kernels")
def _(device: Any, args: argparse.Namespace) -> None:
    for rows, columns, depth in ((64, 4096, 9216), (128, 1000, 4096), (64, 500, 800), (6400, 4096, 1024)):
        for precision in (PRECISIONS["FP32"], PRECISIONS["TF32"], PRECISIONS["BF16"]):
            a, b, c = new(device, rows, depth), new(device, columns, depth), new(device, columns)
            y = device.array(device.allocate(4 * rows * columns), 0, Spec((rows, columns)))
            product = Product(rows, columns, depth, False, True)
            at_once = device.lt.step(a, b, c, y, product, precision, True)
            if at_once is None:
                print(f"  {rows} x {columns} x {depth}, {precision.name}: no algorithm")
                continue
            parts = [
                device.part("pointwise", ((c,), y), "", expr="a"),
                device.blas.product(a, b, y, product, precision, add=True),
                device.part("pointwise", ((y,), y), "", expr="relu(a, 0)"),
            ]
            found = []
            for steps in ([at_once], parts):
                run = device.capture(steps)
                run()
                found.append((device.read(y), microseconds(device, run, 50)[1]))
            differ = float(np.abs(found[0][0] - found[1][0]).max())
            times = f"{found[0][1]:.1f} us at once, {found[1][1]:.1f} us in three"
            print(f"  {rows} x {columns} x {depth}, {precision.name}: {times}; they differ by {differ:.1e}")


@item("CTC: own kernels and cuDNN")
def _(device: Any, args: argparse.Namespace) -> None:
    for steps, streams, classes, labels in ((100, 64, 80, 20), (1000, 32, 5000, 100)):
        values = [np.random.default_rng(0).integers(1, classes, (streams, labels)), [steps] * streams,
                  [labels] * streams]  # fmt: skip
        arrays = [new(device, steps, streams, classes)]
        for value in values:
            given = np.asarray(value, "int32")
            arrays.append(device.array(device.allocate(given.nbytes), 0, Spec(given.shape, "int32")))
            device.write(arrays[-1], given)
        arrays += [new(device, streams), new(device, steps, streams, classes)]
        call = Call(OPS["ctc"], tuple(Tensor("t", Spec(a.shape, a.dtype.name)) for a in arrays), {"blank": 0})
        found = []
        for way in (None, Ctc(device.dnn)):
            device.ctc = way
            run = device.capture([device.bind(call, arrays, device.allocate(device.workspace(call)))])
            run()
            found.append((device.read(arrays[4]), microseconds(device, run, 20)[1]))
        differ = float(np.abs(found[0][0] - found[1][0]).max())
        times = f"own {found[0][1]:.0f} us, cuDNN {found[1][1]:.0f} us"
        print(f"  {steps} x {streams} x {classes}, {labels} labels: {times}; they differ by {differ:.1e}")


def problem(shape: tuple[int, ...], batch: int, kind: str, dtype: str) -> Problem:
    """A convolution of (channels, size, filters, kernel, stride)."""
    c, h, k, r, s = shape
    out = (h + 2 * (r // 2) - r) // s + 1
    pads = (r // 2, r // 2)
    x, w, y = (batch, c, h, h), (k, c, r, r), (batch, k, out, out)
    return Problem(kind, dtype, x, w, y, (s, s), pads, pads, (1, 1), tensor=True)


@item("cuDNN: the heuristics' first plan against the best of 12 (is tuning worth it?)")
def _(device: Any, args: argparse.Namespace) -> None:
    for shape in RESNET:
        for dtype in ("float32", "bfloat16"):
            line = []
            for kind in ("fprop", "dgrad", "wgrad"):
                for tensor in (True, False) if dtype == "float32" else (True,):
                    asked = replace(problem(shape, 64, kind, dtype), tensor=tensor)
                    times, failed = [], 0
                    for plan in islice(device.dnn.plans(asked, CAP), 12):
                        try:
                            times.append(device._measure(plan))
                        except DeviceError as error:
                            failed += 1
                            print(f"  engine {plan.engine} was made and does not run: {error}")
                    what = f"{kind}{'' if tensor else ' strict'}{f' ({failed} fail)' if failed else ''}"
                    line.append(f"{what} {times[0]:.0f} -> {min(times):.0f} us" if times else f"{what} none")
            print(f"  {shape} {dtype}: " + "; ".join(line), flush=True)


@item("cuDNN: capture, and fused bias and ReLU")
def _(device: Any, args: argparse.Namespace) -> None:
    for bias, relu in ((False, False), (True, False), (True, True)):
        asked = replace(problem((64, 56, 64, 3, 1), 16, "fprop", "float32"), bias=bias, relu=relu)
        plan = device.plans.best(asked)
        assert plan is not None
        arrays = [new(device, *s) for s in (asked.x, asked.w, asked.y, *([(64,)] if bias else []))]
        step = device.dnn.step(plan, arrays, device.allocate(max(plan.workspace, 1)))
        graph = device.capture([step])
        graph()
        wanted = device.read(arrays[2])
        device.write(arrays[2], np.zeros(asked.y, "float32"))
        graph()
        same = bool((device.read(arrays[2]) == wanted).all())
        print(f"  bias {bias}, relu {relu}: engine {plan.engine}, the replay is the same: {same}, "
              f"{microseconds(device, step, 50)[1]:.0f} us")  # fmt: skip


@item("memory bandwidth: a pointwise expression, a copy, an upload")
def _(device: Any, args: argparse.Namespace) -> None:
    spec = Spec((64 << 20,))
    a, b = (device.array(device.allocate(spec.nbytes), 0, spec) for _ in range(2))
    call = Call(OPS["pointwise"], ((Tensor("a", spec),), Tensor("b", spec)), {"expr": "a * 2 + 1"})
    for what, step in (("pointwise", device.bind(call, [(a,), b], None)), ("copy", device.launcher.copy(a, b))):
        _, gpu = microseconds(device, step, 20)
        print(f"  {what}: {2 * spec.nbytes / gpu / 1e6:.2f} TB/s")
    batch = np.zeros((16 << 20,), "float32")
    home = device.array(device.allocate(batch.nbytes), 0, Spec(batch.shape))
    host, gpu = microseconds(device, lambda: device.write(home, batch), 20)
    print(f"  upload of 64 MiB: host {host / 1e3:.2f} ms, {batch.nbytes / gpu / 1e3:.1f} GB/s")


@item("memory bandwidth: sums and moments over all but the channels, channels last and plain")
def _(device: Any, args: argparse.Namespace) -> None:
    for shape in ((256, 56, 56, 64), (256, 56, 56, 256), (256, 7, 7, 2048), (256, 64, 56, 56), (256, 2048, 7, 7)):
        last = shape[1] == shape[2]
        axes = (0, 1, 2) if last else (0, 2, 3)
        kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
        for dtype in ("float32", "bfloat16"):
            spec = Spec(shape, dtype)
            x, d = (device.array(device.allocate(spec.nbytes), 0, spec) for _ in range(2))
            a, b, c = (device.array(device.allocate(4 * max(kept)), 0, Spec(kept)) for _ in range(3))
            room = device.allocate(batch.scratch_bytes(device, shape, [shape, shape], axes))
            tensor = Tensor("x", spec)
            call = Call(OPS["reduce"], ((tensor,), Tensor("a", Spec(kept))),
                        {"expr": "a", "how": "sum", "axes": axes})  # fmt: skip
            steps = {
                "reduce": (1, device.bind(call, [(x,), a], device.allocate(max(device.workspace(call), 1)))),
                "moments": (1, batch.moments(device, x, a, b, c, axes, 1e-5, room)),
                "sums": (2, batch.sums(device, [x, d], a, b, "a", "b", axes, room)),
            }
            line = []
            for name, (passes, step) in steps.items():
                _, gpu = microseconds(device, step, 20)
                line.append(f"{name} {gpu:.0f} us, {passes * spec.nbytes / gpu / 1e6:.2f} TB/s")
            print(f"  {shape} {dtype}: " + "; ".join(line), flush=True)


def main() -> int:
    """Go through the list; returns the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--properties", type=Path)
    args = parser.parse_args()
    device: Any = open_device(args.device)
    failures = 0
    for number, (what, function) in enumerate(ITEMS, 1):
        print(f"[{number}] {what}", flush=True)
        start = time.perf_counter()
        try:
            function(device, args)
            print(f"[{number}] ok ({time.perf_counter() - start:.1f} s)", flush=True)
        except Exception:
            failures += 1
            traceback.print_exc()
            print(f"[{number}] FAILED", flush=True)
    return failures


if __name__ == "__main__":
    raise SystemExit(main())
