"""How fast is one operation of device cpu, forward and with its gradients, against NumPy and PyTorch?

    python tools/bench/operations.py [--groups products,updates] [--only "16 x,Adam"]

Every row is a net of one layer (cases.py) or the update of one parameter. The arrays on both ends are plain ones, so
what layouts save between the layers of a net is not in it; gradients are those of all inputs and parameters. Before
anything is timed, outputs and gradients of all sides are compared. The sides of a row take turns:

    netrun   device cpu
    plain    the same without its own ways of multiplying and convolving: what the library makes of the call as it is
    NumPy    device cpu without oneDNN
    BF16     device cpu in that precision
    torch    PyTorch, eager; last: the same on arrays that are channels-last already on both ends

The figures behind a time are how many times as fast as that side netrun is; PyTorch is the better of its two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from cases import CASES, Case, plainly
from common import arguments, median, ratio, take_turns, torch_or_none, write

from netrun.compiler.gradients import backward
from netrun.compiler.graph import build
from netrun.compiler.record import Recording, record
from netrun.compiler.rules import State
from netrun.config import schema
from netrun.config.upgrade import parse_net, parse_solver
from netrun.cpu.fast import Fast
from netrun.program import Program
from netrun.session import Memory, Session
from netrun.training import Training, record_update
from netrun.types import Numerics, Spec, Tensor

RULES = {"SGD": "momentum: 0.9", "Nesterov": "momentum: 0.9", "Adam": "momentum: 0.9", "LARS": "momentum: 0.9"}
SIZES = (400_000, 37_748_736)
REST = 0.1
"""Seconds between two sides: NumPy's BLAS is one of them."""
OWN = ("large products", "products", "convolutions")
"""Groups in which device cpu has ways of its own."""

Arrays = list[np.ndarray[Any, Any]]


def main() -> None:
    """Measure and print."""
    groups = ",".join(dict.fromkeys([case.group for case in CASES] + ["updates"]))
    args = arguments(
        "single operations",
        groups={"default": groups, "help": "which, separated by commas"},
        only={"default": "", "help": "rows with one of these parts in their names"},
        limit={"type": float, "default": 600, "help": "seconds after which no row is begun"},
    )
    torch, rows = torch_or_none(args), list[dict[str, Any]]()
    print(f"{'operation':42} {'pass':8} {'netrun us':>10}   others: us and netrun's speed")
    end = time.monotonic() + args.limit
    for group, name, way, sides in everything(args, torch):
        times = take_turns(sides, args.rounds, args.seconds, REST, settle=True)
        ours = times["netrun"]
        theirs = [side for side in ("torch", "last") if side in times]
        best = min(theirs, key=lambda side: median(times[side]), default=None)
        shown = [s for s in times if s != "netrun" and (s not in theirs or s == best)]
        ratios = {("torch" if s == best else s): ratio(ours, times[s]) for s in shown}
        cells = "  ".join(f"{s} {median(times[s]) * 1e6:8.0f} {ratio(ours, times[s]):5.2f}" for s in shown)
        print(f"{name:42} {way:8} {median(ours) * 1e6:10.0f}   {cells}", flush=True)
        rows.append({"group": group, "operation": name, "pass": way, "seconds": times, "ratios": ratios})
        if time.monotonic() > end:
            print("the time is over")
            break
    write("operations", args, rows, torch=getattr(torch, "__version__", None))


def everything(args: Any, torch: Any) -> Iterator[tuple[str, str, str, Mapping[str, Callable[[], Any]]]]:
    """Group, name, pass and sides of every row that is asked for."""
    groups, only = args.groups.split(","), args.only.split(",")
    for case in CASES:
        if case.group in groups and any(part in case.name for part in only):
            for way in ("forward", "both"):
                yield case.group, case.name, way, layer_sides(case, way, torch)
    for kind in RULES if "updates" in groups else ():
        for count in SIZES:
            name = f"{kind}, {count:,} numbers"
            if any(part in name for part in only):
                yield "updates", name, "update", update_sides(kind, count, torch)


# --------------------------------------------------------------------------------------------------------------- layers
def layer_sides(case: Case, way: str, torch: Any) -> dict[str, Callable[[], Any]]:
    """The sides of a layer's row, compared."""
    rng = np.random.default_rng(0)
    given: Arrays = [
        rng.integers(0, case.whole(i), shape) if case.whole(i) else rng.standard_normal(shape, np.float32)
        for i, shape in enumerate(case.bottoms)
    ]
    device = Fast()
    ours = Ours(case, way, device, given)
    sides: dict[str, Callable[[], Any]] = {"netrun": ours.run}
    ours.run()
    wanted = ours.results()
    others = {"NumPy": Ours(case, way, Fast(numpy=True), given, ours.parameters)}
    if case.sixteen and "BF16" in device.precisions:
        others["BF16"] = Ours(case, way, device, given, ours.parameters, "BF16")
    if case.group in OWN and device.recipes is not None:
        with plainly():
            others["plain"] = Ours(case, way, Fast(), given, ours.parameters)
    for name, other in others.items():
        other.run()
        compare(case, name, other.results(), wanted)
        sides[name] = other.run
    for name in ("torch", "last") if torch is not None and case.group in ("convolutions", "images") else ("torch",):
        if torch is not None:
            sides[name], got = their_side(torch, case, way, given, ours, name == "last")
            compare(case, name, got, wanted)
    return sides


class Ours:
    """A session of the layer, its inputs, parameters and the gradient of its output set."""

    def __init__(
        self, case: Case, way: str, device: Fast, given: Arrays, learned: Arrays | None = None, precision: str = "FP32"
    ) -> None:
        phase = schema.TRAIN if way == "both" or "BatchNorm" in case.layer else schema.TEST
        message, source = parse_net(case.text)
        recording = record(build(message, source, State(phase, 0, ())))
        output = recording.blob("y")
        parameters = [t for p, t in recording.parameters.items() if p.trained]
        self._results = [output]
        seed = Tensor("dy", output.spec, "control")
        if way == "both":
            inputs = [recording.feeds[f"x{i}"] for i in range(len(case.bottoms)) if not case.whole(i)]
            losses = recording.losses
            seeds = [] if losses else [(output, seed)]
            found = backward(recording.recorder, recording.forward, inputs + parameters, losses=losses, seeds=seeds)
            self._results += [found[t] for t in inputs + parameters]
        calls = recording.recorder.calls if way == "both" else recording.forward
        program = replace(recording.program(calls, frozenset(self._results)), numerics=Numerics(precision))
        memory, rng = Memory(device), np.random.default_rng(2)
        self.parameters = learned or [
            rng.standard_normal(t.shape, np.float32) / np.float32(max(8, t.shape[-1]) ** 0.5) for t in parameters
        ]
        for tensor, values in zip(parameters, self.parameters, strict=True):
            memory.write(tensor, values)
        self._session = Session(program, device, memory, frozen=way == "forward")
        self._session.feed({f"x{i}": values for i, values in enumerate(given)})
        self.seed = np.random.default_rng(1).standard_normal(output.shape, np.float32)
        if way == "both" and not recording.losses:
            self._session.write(seed, self.seed)
        self.run = self._session.run

    def results(self) -> Arrays:
        """The output, and the gradients of inputs and parameters."""
        return [self._session.read(t) for t in self._results]


def their_side(
    torch: Any, case: Case, way: str, given: Arrays, ours: Ours, last: bool
) -> tuple[Callable[[], Any], Arrays]:
    """PyTorch's side, and what it gives."""

    def tensor(values: Any, learned: bool) -> Any:
        made = torch.tensor(values)
        if last and made.ndim == 4:
            made = made.to(memory_format=torch.channels_last)
        return made.requires_grad_(learned and way == "both")

    x = [tensor(values, not case.whole(i)) for i, values in enumerate(given)]
    p = [tensor(values, True) for values in ours.parameters]
    leaves, seed = [t for t in (*x, *p) if t.requires_grad], torch.tensor(ours.seed)
    if last and seed.ndim == 4:
        seed = seed.to(memory_format=torch.channels_last)

    def forward() -> Any:
        with torch.inference_mode():
            return case.theirs(torch, x, p)

    def both() -> Any:
        for leaf in leaves:
            leaf.grad = None
        y = case.theirs(torch, x, p)
        y.backward(seed if y.ndim else None)
        return y

    side = forward if way == "forward" else both
    y = side().detach().numpy()
    return side, [y, *(leaf.grad.numpy() for leaf in leaves)]


def compare(case: Case, side: str, got: Arrays, wanted: Arrays) -> None:
    """Refuse to time what does not compute the same."""
    bound = 2e-2 if side == "BF16" else 1e-4
    least = 1e-2 * max(float(np.abs(b).max()) for b in wanted)  # the gradient of a key's bias is 0 but for rounding
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        off = float(np.abs(a - b).max()) / max(least, float(np.abs(b).max()))
        if not off <= bound:
            raise SystemExit(f"{case.name}: result {i} of {side} is off by {off:.1e} of the largest")


# -------------------------------------------------------------------------------------------------------------- updates
def update_sides(kind: str, count: int, torch: Any) -> dict[str, Callable[[], Any]]:
    """The sides of an update's row; all rules have weight decay. PyTorch's are its fused ones, where it has one."""
    options = f'type: "{kind}" {RULES[kind]} weight_decay: 0.0005 lr_policy: "fixed" base_lr: 0.001'
    sides = {"netrun": update(options, count, Fast()), "NumPy": update(options, count, Fast(numpy=True))}
    if torch is not None and kind != "LARS":
        w = torch.full((count,), 0.01, requires_grad=True)
        w.grad = torch.full((count,), 0.01)
        momentum = {} if kind == "Adam" else {"momentum": 0.9, "nesterov": kind == "Nesterov"}
        made = torch.optim.Adam if kind == "Adam" else torch.optim.SGD
        sides["torch"] = made([w], lr=1e-3, weight_decay=5e-4, fused=True, **momentum).step
    return sides


def update(options: str, count: int, device: Fast) -> Callable[[], Any]:
    """The part of a training iteration that updates one parameter."""
    message, source = parse_net(f"""layer {{ name: "w" type: "Parameter" top: "w" parameter_param {{
        shape {{ dim: {count} }} }} }}""")
    recording: Recording = record(build(message, source, State(schema.TRAIN, 0, ())))
    (parameter,) = recording.parameters
    spec, solver = Spec((count,)), parse_solver(options)[0]
    training = Training(recording, Program(()), None)
    history = ("m", "v") if solver.type == "Adam" else ("h",)
    training.history[parameter] = [Tensor(name, spec, "history") for name in history]
    gradient = Tensor("g", spec, "control")
    before = len(recording.recorder.calls)
    record_update(recording.recorder, {parameter: gradient}, training, solver)
    session = Session(Program(tuple(recording.recorder.calls[before:])), device, Memory(device))
    for tensor in (gradient, recording.parameters[parameter]):
        session.write(tensor, np.full(count, 0.01, "float32"))
    session.write(training.lr, np.float32(1e-3))
    if solver.type == "Adam":
        session.write(training.correction, np.float32(1))
    return session.run


if __name__ == "__main__":
    main()
