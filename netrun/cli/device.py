"""Which device a command runs on: what the flags say, then the solver, then what there is."""

from __future__ import annotations

from ..config import schema
from ..device import Device, open_device
from ..errors import DeviceError, UsageError
from ..log import Log

CPU_LINE, GPU_LINE = {"train": 197, "test": 275, "time": 343}, {"train": 204, "test": 266, "time": 334}
"""Where the line about the device stands in Caffe, by command."""


def choose_device(
    device: str, gpu: str, log: Log, command: str, solver: schema.SolverParameter | None = None
) -> Device:
    """Open the device a command shall run on, and say so in the log.

    Args:
        device: the flag --device, or "".
        gpu: the flag --gpu, or "".
        command: "train", "test" or "time".
        solver: its ``device``, ``solver_mode`` and ``device_id`` count where no flag says anything.

    Raises:
        DeviceError, UsageError: a device that was asked for by name cannot be opened.
    """
    name = _from_gpu(gpu) if gpu else device or (solver.device if solver is not None else "auto")
    opened = _automatic(solver, log) if name == "auto" else open_device(name)
    if opened.name.startswith("cuda"):
        number = opened.name.partition(":")[2] or "0"
        text = f"Using GPUs {number}" if command == "train" else f"Use GPU with device ID {number}"
        log(text, f"caffe.cpp:{GPU_LINE[command]}")
    else:
        text = "Use CPU." if opened.name == "cpu" else f"Use device {opened.name}."
        log(text, f"caffe.cpp:{CPU_LINE[command]}")
    return opened


def _from_gpu(gpu: str) -> str:
    """The device's name from Caffe's flag."""
    if gpu == "none":
        return "cpu"
    if gpu == "all":
        return "cuda:0"
    if gpu.isdigit():
        return f"cuda:{gpu}"
    if all(part.strip().isdigit() for part in gpu.split(",")):
        raise UsageError(f"--gpu {gpu}: a run uses one GPU", None, [f"write --gpu {gpu.split(',')[0]}"])
    raise UsageError(f'--gpu wants the number of a GPU, all or none, got "{gpu}"')


def _automatic(solver: schema.SolverParameter | None, log: Log) -> Device:
    """A GPU if one opens and the solver does not say CPU; else the CPU."""
    said = solver is not None and solver.HasField("solver_mode")
    if solver is not None and said and solver.solver_mode == schema.SolverParameter.CPU:
        return open_device("cpu")
    try:
        return open_device(f"cuda:{solver.device_id if solver is not None else 0}")
    except (DeviceError, UsageError) as error:
        if said:
            reason = str(error).partition("\n")[0]
            log(
                f"the solver says GPU, and none can be used here, so it runs on the CPU ({reason})",
                "caffe.cpp:197",
                "W",
            )
    return open_device("cpu")
