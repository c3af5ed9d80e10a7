"""netrun against PyTorch on one GPU, side by side in one run.

    python tools/gpu/bench.py --out tools/results/now [--nets alexnet,resnet50] [--precisions FP32,TF32,BF16]
                              [--work forward,both,train] [--seconds 240] [--no-torch] [--no-compile] [--device cuda:0]

For each net, precision and kind of work: milliseconds an iteration of netrun, of PyTorch eager (channels-last,
cudnn.benchmark) and of torch.compile; netrun's host overhead (wall minus GPU busy); peak memory. Values already lie on
the device. "forward" is inference on both sides: the TEST phase, with what follows from parameters alone made once.
NETRUN_CUDA_TUNE=1 in the environment is what cudnn.benchmark is there. A row that does not fit into --seconds any more
is listed as not measured. Writes table.md and rows.json; where an error has cost the process its GPU, a fresh one goes
on with the rows that are left.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from bench_nets import NETS, WRITTEN, recorded, values

from netrun.cli.timing import forward_backward
from netrun.compiler.record import Recording
from netrun.config import schema
from netrun.device import open_device
from netrun.params import initialise
from netrun.runner import forward_program
from netrun.session import SHARED, Memory, Session
from netrun.training import compile_training
from netrun.types import Spec

ROUNDS = {"lenet": 500, "cifar10_quick": 500}
"""Of the small nets; ten of the others."""


@dataclass
class Row:
    """One measurement; times are milliseconds an iteration."""

    net: str
    batch: int
    precision: str
    work: str
    netrun: float | None = None
    gpu: float | None = None
    overhead: float | None = None
    planned_mib: float | None = None
    peak_mib: float | None = None
    eager: float | None = None
    compiled: float | None = None
    torch_mib: float | None = None
    notes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)


# -------------------------------------------------------------------------------------------------------------- netrun
def session_of(recording: Recording, graph: Any, work: str, memory: Memory) -> Session:
    """The forward pass, forward and backward, or a training iteration, fed and ready.

    Args:
        memory: parameters, which keep what an earlier session of the net has filled them with.
    """
    device = memory.device
    if work == "train":
        solver = schema.SolverParameter(base_lr=0.001, lr_policy="fixed", momentum=0.9, weight_decay=0.0005)
        training = compile_training(graph, solver)
        recording, program = training.recording, training.step
    else:
        program = forward_program(recording) if work == "forward" else forward_backward(recording)
    initialise(recording, memory, seed=0)
    session = Session(program, device, memory, frozen=work == "forward")
    for name, value in values(recording).items():
        device.write(session.feeds[name], value)
    if work == "train":
        session.write(training.lr, np.float32(0.001))
    return session


BLOCKED = 64 << 20
"""Bytes that are copied again and again to keep the GPU busy: 30 microseconds and more each time."""


def time_netrun(row: Row, session: Session, rounds: int, besides: int = 0) -> None:
    """Fill in the row: wall time a round, and what the GPU is busy for if it never waits for the host.

    Args:
        besides: bytes of device memory that have nothing to do with it.
    """
    device: Any = session.device
    if hasattr(device, "xp"):
        device.xp.get_default_memory_pool().free_all_blocks()  # what tuning has left
    for _ in range(3):  # call by call, the capture, a replay
        session.run()
    device.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        session.run()
    device.synchronize()
    row.netrun = (time.perf_counter() - start) * 1e3 / rounds
    row.planned_mib = session.plan.total / 2**20
    if not hasattr(device, "xp"):
        return
    row.peak_mib = (device.xp.get_default_memory_pool().total_bytes() - besides) / 2**20
    a, b = (device.array(device.allocate(BLOCKED), 0, Spec((BLOCKED,), "uint8")) for _ in range(2))
    block = device.launcher.copy(a, b)
    for count in (200, 2000):  # one after another while the host lines up rounds behind them
        events = [device.xp.cuda.Event() for _ in range(min(rounds, 30) + 1)]
        for _ in range(count):
            block()
        events[0].record(device.stream)
        for event in events[1:]:
            session.run()
            event.record(device.stream)
        waited = not events[0].done
        device.synchronize()
        if waited:
            break
    else:
        row.notes.append("GPU time: the host was not ahead")
    row.gpu = statistics.median(float(device.xp.cuda.get_elapsed_time(x, y)) for x, y in pairwise(events))
    row.overhead = 100 * (row.netrun - row.gpu) / row.gpu


# ------------------------------------------------------------------------------------------------------------- PyTorch
def time_torch(row: Row, recording: Recording, compiled: bool, rounds: int, device: str) -> None:
    """Fill in the row from PyTorch in the same precision, on the same values."""
    import torch
    from torch_nets import TorchNet

    tf32 = row.precision != "FP32"
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    place = torch.device("cuda" if device.startswith("cuda") else "cpu")
    if compiled:
        import torch._dynamo  # not before: it takes seconds

        torch._dynamo.reset()  # every net is the same class: after eight of them it would give up and run eagerly
    with place:
        net = TorchNet(recording).to(memory_format=torch.channels_last)
    net.train(row.work != "forward")
    fed = {}
    for name, value in values(recording).items():
        tensor = torch.as_tensor(value, device=place)
        fed[name] = tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
    run = torch.compile(net) if compiled else net
    optimizer = torch.optim.SGD(net.parameters(), 0.001, 0.9, weight_decay=0.0005)
    half = {"BF16": torch.bfloat16, "FP16": torch.float16}.get(row.precision)

    def iteration() -> None:
        with torch.autocast(place.type, half or torch.bfloat16, enabled=half is not None):
            if row.work == "forward":
                with torch.no_grad():
                    run(**fed)
                return
            out = run(**fed)
            loss = out if torch.is_tensor(out) else sum(o.float().sum() for o in out)
        net.zero_grad(set_to_none=True)
        loss.backward()
        if row.work == "train":
            optimizer.step()

    def wait() -> None:
        if place.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(5):
        iteration()
    wait()
    start = time.perf_counter()
    for _ in range(rounds):
        iteration()
    wait()
    spent = (time.perf_counter() - start) * 1e3 / rounds
    if compiled:
        row.compiled = spent
    else:
        row.eager = spent
        if place.type == "cuda":
            row.torch_mib = torch.cuda.max_memory_allocated() / 2**20


def freed_torch() -> None:
    """Give PyTorch's memory back, if PyTorch is here at all."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


# --------------------------------------------------------------------------------------------------------------- output
def table(rows: list[Row]) -> Iterator[str]:
    """The rows in Markdown."""
    heads = ["net", "batch", "precision", "work", "netrun ms", "GPU ms", "host overhead %", "eager ms", "compile ms",
             "against eager", "against compile", "planned MiB", "peak MiB", "torch MiB", "notes"]  # fmt: skip
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for r in rows:
        speed = [t / r.netrun if t and r.netrun else None for t in (r.eager, r.compiled)]
        cells = [r.net, r.batch, r.precision, r.work, r.netrun, r.gpu, r.overhead, r.eager, r.compiled, *speed,
                 r.planned_mib, r.peak_mib, r.torch_mib, "; ".join(r.notes)]  # fmt: skip
        yield (
            "| "
            + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c if c is not None else "-") for c in cells)
            + " |"
        )


def guarded(row: Row, what: str, action: Callable[[], None]) -> None:
    """Run one measurement; what goes wrong becomes a note, and the rest is still measured."""
    try:
        action()
    except Exception as error:
        traceback.print_exc()
        row.notes.append(f"{what}: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--nets", default="lenet,cifar10_quick,alexnet,overfeat,vgg_a,googlenet,resnet50,googlenet_train"
    )
    parser.add_argument("--precisions", default="FP32,TF32,BF16")
    parser.add_argument("--work", default="forward,both,train")
    parser.add_argument("--batch", type=int, default=0, help="instead of each net's own")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--again", action="store_true", help="go on with the rows of --out that are not measured yet")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    ends = float(os.environ.setdefault("NETRUN_BENCH_ENDS", str(time.time() + args.seconds)))
    device: Any = open_device(args.device)
    rows = [
        Row(name, args.batch or NETS[name][1], precision, work)
        for work in args.work.split(",")
        for precision in args.precisions.split(",")
        for name in args.nets.split(",")
        # these files have no loss
        if work != "train" or name not in ("alexnet", "overfeat", "vgg_a", "googlenet", *WRITTEN)
    ]
    if args.again:
        rows = [Row(**values) for values in json.loads((args.out / "rows.json").read_text())]
    memories: dict[str, Memory] = {}
    held: Counter[str] = Counter()

    def write() -> None:
        """After every measurement: whoever ends this for lack of time still has all that was measured."""
        (args.out / "rows.json").write_text(json.dumps([asdict(r) for r in rows], indent=1))
        (args.out / "table.md").write_text("\n".join(table(rows)) + "\n")

    def measure(row: Row, what: str) -> None:
        if what in row.done:
            return
        if time.time() > ends:
            row.notes.append(f"{what} not measured: out of time")
            return
        rounds = args.rounds or ROUNDS.get(row.net, 10)

        def action() -> None:
            recording = recorded(row.net, row.batch, row.precision if what == "netrun" else "FP32", row.work)
            if what == "netrun":
                memory = memories.setdefault(row.net, Memory(device))
                others = sum(held[net] for net in memories if net != row.net)
                session = session_of(recording, recording.graph, row.work, memory)
                time_netrun(row, session, rounds, others)
                held[row.net] = sum(t.spec.nbytes for t in session.program.tensors() if t.kind in SHARED)
            else:
                time_torch(row, recording, what == "compile", rounds, args.device)

        row.done.append(what)
        guarded(row, what, action)
        print(json.dumps(asdict(row)), flush=True)
        write()
        gc.collect()
        try:
            freed_torch()
            device.synchronize()
        except Exception:  # whatever CUDA reports now, it reports for ever in this process
            print("the GPU is lost to this process; another goes on", flush=True)
            again = [] if args.again else ["--again"]
            os.execv(sys.executable, [sys.executable, *sys.argv, *again])
        if hasattr(device, "xp"):
            device.xp.get_default_memory_pool().free_all_blocks()  # the other side shall have them

    write()
    # Compiling takes PyTorch longer than all the rest: first everything else has its turn.
    for row in rows:
        measure(row, "netrun")
        if not args.no_torch:
            measure(row, "eager")
    for row in rows if not (args.no_torch or args.no_compile) else []:
        measure(row, "compile")
    write()


if __name__ == "__main__":
    main()
