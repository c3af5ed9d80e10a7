"""How much faster than the direct convolution is Winograd's filtering, layer by layer of a net on device cpu?

    python tools/bench/winograd.py [--nets vgg_a,googlenet] [--batch 16] [--precision FP32] [--every]

Each call of a net's forward and backward pass that device cpu filters is run both ways, in turns, with the layouts it
has in the net; ``--every`` takes those, too, that could be filtered and are not, to see what the estimate misses.
The last line of a net is the whole of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from common import ROOT, arguments, median, ratio, take_turns, write
from nets import LARGEST, NETS
from ours import net_for, session

from netrun.cpu import winograd_cost
from netrun.cpu.dnnl import library
from netrun.cpu.onednn import Recipes
from netrun.cpu.recipe import Recipe
from netrun.device import open_device
from netrun.program import Call
from netrun.types import PLAIN, Tensor

PASSES = {"conv": "forward", "conv_then": "forward", "conv_grad_x": "input's gradient",
          "conv_grad_w": "weights' gradient", "conv_grad_wb": "weights' gradient"}  # fmt: skip


def main() -> None:
    """Measure and print."""
    args = arguments(
        "Winograd's filtering against the direct convolution",
        nets={"default": ",".join(NETS), "help": "which, separated by commas"},
        batch={"type": int, "default": 16, "help": "batch size"},
        precision={"default": "FP32", "help": "FP32 or BF16"},
        every={"action": "store_true", "help": "layers that are not filtered, too"},
    )
    rows = []
    print(f"{'net':10} {'layer':28} {'pass':18} {'direct ms':>10} {'filtered':>10} {'ratio':>6} {'taken':>6}")
    for name in args.nets.split(","):
        batch = min(args.batch, LARGEST.get(name, 1024))
        message, _ = net_for(str(ROOT / NETS[name]), batch)
        sides = {way: side(message, args.precision, way == "filtered") for way in ("direct", "filtered")}
        rows += layers(name, sides["filtered"].program.calls, args)
        times = take_turns({way: s.run for way, s in sides.items()}, args.rounds, args.seconds)
        rows.append(line(name, f"batch {batch}", "all of it", times, True))
        rows[-1]["planned_bytes"] = {way: s.plan.total for way, s in sides.items()}
    write("winograd", args, rows)


def side(message: Any, precision: str, filtered: bool) -> Any:
    """The net's session, with filtering or without."""
    winograd_cost.ENABLED = filtered
    made = session(message, "both", precision=precision)
    winograd_cost.ENABLED = True
    return made


def layers(name: str, calls: tuple[Call, ...], args: Any) -> list[dict[str, Any]]:
    """The rows of a net's layers; calls that are alike are measured once."""
    device, found, seen = open_device("cpu"), [], set()
    for call in calls:
        if call.op.name not in PASSES:
            continue
        call = plain_weights(call)
        key = (call.op.name, *(t.spec for t in call.tensors()))
        direct, asked = recipe(call, 0)
        filtered, taken = recipe(call, None)
        if key in seen or not asked or not (any(taken) or args.every):
            continue
        if not any(taken):
            filtered, _ = recipe(call, 2)
        recipes = {"direct": direct, "filtered": filtered}
        seen.add(key)
        bound = {way: bind(device, call, r) for way, r in recipes.items()}
        times = take_turns(bound, args.rounds, args.seconds / 5)
        found.append(line(name, str(call.origin), PASSES[call.op.name], times, any(taken)))
    return found


def plain_weights(call: Call) -> Call:
    """The call with its weights as they are in training."""

    def put(t: Tensor) -> Tensor:
        return Tensor(t.name, replace(t.spec, layout=PLAIN), "learned") if t.spec.layout.startswith("work:") else t

    return call.map(put)


def recipe(call: Call, tiles: int | None) -> tuple[Recipe, list[int]]:
    """The recipe with tiles of that side, 0: the direct one, None: as the estimate says; and what was said."""
    estimate, said = winograd_cost.choice, list[int]()

    def choice(s: winograd_cost.Sizes, ready: bool = False) -> int:
        said.append(estimate(s, ready) if tiles is None else tiles)
        return said[-1]

    winograd_cost.choice = choice
    lib = library()
    if lib is None:
        raise SystemExit("device cpu has no oneDNN here: nothing to compare")
    try:
        found = Recipes(lib).of(call)
    finally:
        winograd_cost.choice = estimate
    if found is None:
        raise SystemExit(f"{call.origin}: oneDNN does not run it")
    return found, said


def bind(device: Any, call: Call, r: Recipe) -> Any:
    """The recipe on memory of its own, filled with a number that is no rare one."""
    arrays: dict[str, tuple[Any, ...]] = {}
    for argument, given in zip(call.op.arguments, call.args, strict=True):
        if isinstance(given, Tensor):
            memory = device.allocate(device.nbytes(given.spec))
            memory.view("uint16")[:] = 0x3C01  # small, in 16 bits and in 32
            arrays[argument.name] = (device.array(memory, 0, given.spec),)
    return r.bind(arrays, device.allocate(max(1, r.scratch)))


def line(name: str, layer: str, way: str, times: dict[str, list[float]], taken: bool) -> dict[str, Any]:
    """Print a row and give it back."""
    factor = ratio(times["filtered"], times["direct"])
    spent = " ".join(f"{median(times[w]) * 1e3:10.2f}" for w in ("direct", "filtered"))
    print(f"{name:10} {layer[:28]:28} {way:18} {spent} {factor:6.2f} {'yes' if taken else 'no':>6}", flush=True)
    return {"net": name, "layer": layer, "pass": way, "seconds": times, "ratio": factor, "taken": taken}


if __name__ == "__main__":
    main()
