"""What to say when a net does not fit into memory: how much it wants, which layers want it, and what would fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from .compiler.plan import Plan, plan
from .compiler.recompute import recompute
from .compiler.summary import size_text
from .device import Device
from .errors import NetrunError, OutOfMemoryError
from .program import Call, Origin, Program
from .types import Numerics

LARGEST = 5
"""Layers that are named."""


def shortage(
    error: OutOfMemoryError, program: Program, prepared: Program, planned: Plan, device: Device, taken: int
) -> OutOfMemoryError:
    """The error of a session that could not be made.

    Args:
        error: the device's own.
        program: before the device prepared it; ``prepared``: after.
        taken: bytes that the session had got before that, and those of its parameters, which stand there already.
    """
    free = None if error.free is None else error.free + taken
    have = "" if free is None else f", and there is room for {size_text(free)}"
    what = f"device {device.name}: the net takes {size_text(planned.total)} ({planned.total:,} bytes){have}"
    notes = ["its largest layers, with what is computed for them:"]
    notes += [f"  {line}" for line in largest(prepared.calls)]
    offers = list(_offers(program, planned, device, free))
    if offers:
        notes.append("what would take less:")
        width = max(len(name) for name, _ in offers)
        notes += [f"  {name:<{width}}  {text}" for name, text in offers]
    else:
        notes.append("no smaller batch, precision or recompute makes it fit")
    return OutOfMemoryError(what, None, notes, free=free)


def largest(calls: Iterable[Call], count: int = LARGEST) -> list[str]:
    """The layers that make the largest tensors, with their bytes, forward and backward together."""
    sizes: dict[Origin, int] = {}
    for call in calls:
        origin = call.origin.forward
        sizes[origin] = sizes.get(origin, 0) + sum(t.spec.nbytes for t in call.writes() if t.root.kind != "learned")
    top = sorted(((str(origin), size) for origin, size in sizes.items()), key=lambda pair: -pair[1])[:count]
    width = max((len(name) for name, _ in top), default=0)
    return [f"{name:<{width}}  {size_text(size)}" for name, size in top if size]


def _offers(program: Program, planned: Plan, device: Device, free: int | None) -> Iterator[tuple[str, str]]:
    """Changes of a run that make it smaller, as a person writes them, and what each comes to."""
    batch = program.batch
    feeds = sum(t.spec.nbytes for t in program.feeds.values())
    growing = planned.arena + planned.scratch + feeds
    fixed = planned.total - growing
    if free is not None and batch > 1:
        fits = int(batch * (free - fixed) / growing) if growing else 0
        if 0 < fits < batch:
            yield f"batch {fits}", f"about {size_text(int(fixed + growing * fits / batch))} instead of batch {batch}"

    def told(changed: Program) -> str:
        size = plan(changed).arena + planned.scratch + planned.held
        verdict = "" if free is None else ": fits" if size <= free else ": does not fit"
        return f"{size_text(size)}{verdict}" if size < planned.total else ""

    other = recompute(program)
    half = Numerics("BF16", program.numerics.deterministic)
    tries = [("recompute: true", other, program.numerics)]
    if program.numerics.precision in ("FP32", "TF32"):
        tries += [("precision: BF16", program, half), ("precision: BF16 recompute: true", other, half)]
    for name, changed, numerics in tries:
        if changed is program and "recompute" in name:
            continue
        try:
            text = told(device.prepare(replace(changed, numerics=numerics)))
        except NetrunError:  # a device without that precision
            continue
        if text:
            yield name, text


__all__ = ["largest", "shortage"]
