"""Which plan a convolution runs by: the heuristics' first, or the fastest of some, remembered."""

from __future__ import annotations

import base64
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netrun.errors import DeviceError

from .capture import RetryError
from .dnn import Dnn, Plan, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .device import Cuda
    from .launch import Step

CAP = 1 << 30
"""Bytes of workspace a plan may take: the one scratch area of a session is as large as the largest. The first layer of
ResNet-50 at 256 images has no good plan below 985 MiB."""

CANDIDATES = 10
"""Plans that are measured when tuning."""

Measure = Callable[[Plan, float], float]
"""Microseconds a plan takes. One that takes far more than the second number may be timed less carefully."""


class Plans:
    """The plan of every problem, in memory; with tuning also on disk.

    Args:
        dnn: makes the plans.
        chip: name of the device; tuned plans of one chip and cuDNN are of no use on another.
        measure: times a plan. None: no tuning, nothing on disk.
        folder: where tuned plans are kept.
    """

    def __init__(self, dnn: Dnn, chip: str, measure: Measure | None = None, folder: Path | None = None) -> None:
        self.dnn, self.chip, self.measure = dnn, chip, measure
        self._found: dict[Problem, Plan | None] = {}
        self._others: dict[Problem, Iterator[Plan]] = {}
        name = "".join(c if c.isalnum() else "-" for c in chip)
        self.file = (folder or default_folder()) / f"{name}-{dnn.version}.json"
        self._kept: dict[str, str] | None = None

    def best(self, problem: Problem) -> Plan | None:
        """The plan to use; None if cuDNN has none for this problem."""
        if problem not in self._found:
            self._found[problem] = self._search(problem)
        return self._found[problem]

    def instead(self, plan: Plan) -> Plan | None:
        """Another plan for the problem of one that does not run; None if all have been given. It is the best from now
        on."""
        problem = plan.problem
        now = self._found.get(problem)
        if now is not None and now is not plan:
            return now  # somebody else has already gone on to it
        if problem not in self._others:
            self._others[problem] = self._offered(problem)
        for other in self._others[problem]:
            if (other.engine, other.workspace, other.notes) != (plan.engine, plan.workspace, plan.notes):
                self._found[problem] = other
                return other
        return None

    def _search(self, problem: Problem) -> Plan | None:
        offered = self._offered(problem)
        if self.measure is None:
            return next(offered, None)
        kept = self._read().get(repr(problem))
        if kept is not None:
            plan = self.dnn.restored(problem, base64.b64decode(kept))
            if plan is not None and plan.workspace <= CAP:
                return plan
        tried = list(islice(offered, CANDIDATES))
        measured: list[tuple[float, int]] = []
        for i, plan in enumerate(tried):
            with suppress(DeviceError):  # too large for what is free, or one that does not run: another is chosen
                measured.append((self.measure(plan, min(measured)[0] if measured else math.inf), i))
        if not measured:
            return tried[0] if tried else None
        fastest = tried[min(measured)[1]]
        self._keep(problem, fastest)
        return fastest

    def _offered(self, problem: Problem) -> Iterator[Plan]:
        """Precompiled engines; those that cuDNN compiles on the spot only where there is no other."""
        some = False
        for plan in self.dnn.plans(problem, CAP):
            some = True
            yield plan
        if not some:
            yield from self.dnn.plans(problem, CAP, compiled=True)

    # ------------------------------------------------------------------------------------------------------------ disk
    def _read(self) -> dict[str, str]:
        if self._kept is None:
            self._kept = {}
            with suppress(OSError, ValueError):  # absent or damaged: measured again
                found = json.loads(self.file.read_text(encoding="utf-8"))
                self._kept = {str(k): str(v) for k, v in found.items()}
        return self._kept

    def _keep(self, problem: Problem, plan: Plan) -> None:
        kept = self._read()
        kept[repr(problem)] = base64.b64encode(self.dnn.text_of(plan)).decode()
        with suppress(OSError):  # a folder that cannot be written costs the tuning of the next run, no more
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.file.parent, delete=False, encoding="utf-8") as out:
                json.dump(kept, out, indent=0)
            os.replace(out.name, self.file)


class Execution:
    """A step that executes a plan; one that cuDNN made and then does not run gives way to the next.

    Called while a graph is captured it cannot go on: an error has ended the capture. Whoever captures catches
    ``RetryError``, asks for ``another``, and captures again later.
    """

    def __init__(self, device: Cuda, plan: Plan, arrays: Sequence[Any], workspace: Any) -> None:
        self._device, self._plan, self._arrays, self._workspace = device, plan, tuple(arrays), workspace
        self._step: Step = device.dnn.step(plan, arrays, workspace)

    def __call__(self) -> None:
        try:
            self._step()
        except DeviceError as error:
            if self._captures():
                raise RetryError(error, self.another) from None
            while self.another():
                with suppress(DeviceError):
                    self._step()
                    return
            raise

    def _captures(self) -> bool:
        try:
            return bool(self._device.stream.is_capturing())
        except RuntimeError:  # CuPy's word for a capture that an error has ended
            return True

    def another(self) -> bool:
        """Go on to another plan; False where there is none."""
        plan = self._device.plans.instead(self._plan)
        if plan is None:
            return False
        if plan.workspace > self._workspace.nbytes:
            self._workspace = self._device.allocate(plan.workspace)
        self._plan, self._step = plan, self._device.dnn.step(plan, self._arrays, self._workspace)
        return True


def default_folder() -> Path:
    """``netrun/cudnn`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "netrun" / "cudnn"
