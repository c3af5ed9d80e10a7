"""Snapshots: the weights and the solver's state, in Caffe's files plus what netrun needs to go on exactly.

A snapshot is complete or absent: the weights are written first, then the state, each under a temporary name and renamed
when all bytes are on the disk. Only a complete state makes a run resume.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .compiler.sharing import Parameter
from .compiler.splits import written_out
from .config import schema
from .config.hdf5 import check_names, require
from .config.paths import check_name
from .config.stored import State
from .config.weights import exceeds_limit, read_state, read_weights, write_state, write_weights
from .errors import UsageError, WeightsError
from .params import LoadOptions, assign, blobs_of
from .session import Memory
from .training import Training
from .types import Shape

if TYPE_CHECKING:
    from .solver import Solver


SAME = LoadOptions(
    strict=True,
    reason="a run is resumed with the layers it had",
    remedy="--weights in place of --snapshot starts a new run from these weights",
)
"""How a snapshot's weights come back: a layer that they lack would be at its start while its momentum is not."""


def prefix_of(solver: schema.SolverParameter, solver_file: str) -> str:
    """What the names of snapshots begin with, relative to the working directory.

    The solver's ``snapshot_prefix``; where that is a folder, the solver file's stem inside it; without one, the solver
    file's path without its ending.

    Raises:
        ConfigError: no file can have that name.
    """
    stem = Path(solver_file).with_suffix("") if solver_file else Path("netrun")
    prefix = solver.snapshot_prefix
    check_name(prefix)
    if not prefix:
        return str(stem)
    return os.path.join(prefix, stem.name) if os.path.isdir(prefix) else prefix


def check_writable(prefix: str) -> None:
    """Refuse before hours of work what would fail at the first snapshot.

    Raises:
        UsageError: the folder of the snapshots cannot be made or written to.
    """
    folder = os.path.dirname(prefix) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f'snapshot_prefix "{prefix}": its folder cannot be made ({error.strerror})') from None
    try:
        with tempfile.TemporaryFile(dir=folder):  # what permissions say is not all: /proc, a disk mounted read-only
            pass
    except OSError as error:
        what = f'snapshot_prefix "{prefix}": the folder {folder} cannot be written to ({error.strerror})'
        raise UsageError(what) from None


def as_hdf5(solver: Solver) -> bool:
    """Whether snapshots are HDF5: if the solver says so, or if one of the two files is too large for protobuf."""
    training = solver.training
    weights = sum(tensor.spec.nbytes for tensor in training.recording.parameters.values())
    history = sum(tensor.spec.nbytes for column in training.history.values() for tensor in column)
    large = exceeds_limit(max(weights * (2 if solver.message.snapshot_diff else 1), history))
    return large or solver.message.snapshot_format == schema.SolverParameter.HDF5


def check_format(solver: Solver) -> None:
    """Settle before training in which format its snapshots will be; one line in the log if it is not the one asked for.

    Raises:
        UsageError: it is HDF5, and h5py is not installed or the name of a layer does not go into such a file.
    """
    if not as_hdf5(solver):
        return
    require()
    nodes = solver.training.recording.graph.nodes
    check_names([(node.name, len(node.parameters)) for node in nodes if node.parameters])
    if solver.message.snapshot_format != schema.SolverParameter.HDF5:
        solver.log("Snapshots of this net would be larger than 2 GiB: they are written as HDF5", "solver.cpp:447", "W")


def write(solver: Solver) -> tuple[str, str]:
    """Write both files of a snapshot of the solver as it stands; returns their names."""
    hdf5 = as_hdf5(solver)
    stem = f"{solver.prefix}_iter_{solver.iteration}"
    weights, state = (f"{stem}.{kind}{'.h5' if hdf5 else ''}" for kind in ("caffemodel", "solverstate"))
    solver.log(f"Snapshotting to {'HDF5' if hdf5 else 'binary proto'} file {weights}", "solver.cpp:464")
    save_weights(weights, solver.training.recording, solver.memory, hdf5, _gradients(solver))
    what = "HDF5" if hdf5 else "binary proto"
    solver.log(f"Snapshotting solver state to {what} file {state}", "sgd_solver.cpp:284")
    write_state(state, _state(solver, weights), as_hdf5=hdf5)
    return weights, state


def _gradients(solver: Solver) -> dict[Any, np.ndarray[Any, Any]]:
    """What the last update subtracted, by the tensor of the parameter, if the solver saves that."""
    if not solver.message.snapshot_diff:
        return {}
    session, found = solver.runners[0].session, {}
    for tensor, gradient in solver.training.saved.items():
        found[tensor] = session.read(gradient).reshape(tensor.shape)
    return found


def save_weights(
    path: str,
    recording: Any,
    memory: Memory,
    hdf5: bool = False,
    gradients: Mapping[Any, np.ndarray[Any, Any]] | None = None,
    shapes: Mapping[Parameter, Shape] | None = None,
) -> None:
    """Write the weights of a recorded net, readable by Caffe, with the ``gradients`` of its tensors beside them.

    ``shapes``: parameters that are written in other axes than those their layer has them in.
    """
    messages: list[schema.LayerParameter] = []
    values: dict[int, dict[int, Any]] = {}
    slopes: dict[int, dict[int, Any]] = {}
    nodes = recording.graph.nodes
    arrays = dict(zip(map(id, nodes), blobs_of(recording, memory), strict=True))
    for at, (message, node) in enumerate(written_out(recording.graph)):
        messages.append(message)
        if node is None or not node.parameters:
            continue
        pairs = zip(node.parameters, arrays[id(node)], strict=True)
        own = enumerate((p, a.reshape((shapes or {}).get(p, a.shape))) for p, a in pairs)
        # An HDF5 file holds the values of a shared blob with its owner alone; gradients it holds with everybody.
        values[at] = {i: a for i, (p, a) in own if not (hdf5 and p.owner)}
        if gradients:
            slopes[at] = {}
            for i, (p, a) in enumerate(zip(node.parameters, arrays[id(node)], strict=True)):
                found = gradients.get(recording.parameters[p.owner or p])
                slopes[at][i] = np.zeros_like(a) if found is None else found.reshape(a.shape)
    write_weights(path, recording.graph.name, messages, values, slopes, as_hdf5=hdf5)


def _state(solver: Solver, weights: str) -> State:
    training, memory = solver.training, solver.memory
    columns = list(training.history.values())
    history = [
        memory.read(column[i]) if column[i].name in memory else np.zeros(column[i].shape, np.float32)
        for i in range(len(columns[0]) if columns else 0)
        for column in columns
    ]
    cursors = [c for runner in solver.runners for c in runner.cursors()]
    carried = {key: value for runner in solver.runners for key, value in runner.carried().items()}
    return State(
        solver.iteration,
        weights,
        solver.schedule.current_step,
        history,
        cursors,
        solver.seed,
        list(solver.losses),
        solver.schedule.best,
        solver.schedule.since,
        carried,
    )


def restore(solver: Solver, path: str) -> None:
    """Bring the solver to where a snapshot left it: weights, history, iteration, and (in ours) data, randomness and
    what recurrent layers carry from batch to batch.

    Raises:
        UsageError: the file is not there, or is no solver state.
        WeightsError: it does not belong to this net or this solver type.
    """
    solver.watch.forget()
    state = read_state(path)
    if state.seed is not None:
        solver.reseed(state.seed)
    history = _checked_history(solver.training, state.history, solver.message.type, path)
    learned = _find_weights(state.learned_net, path)
    if learned:
        assign(solver.training.recording, solver.memory, read_weights(learned), learned, SAME)
    for tensor, values in history:
        solver.memory.write(tensor, values.reshape(tensor.shape))
    solver.iteration = state.iter
    solver.schedule.current_step = state.current_step
    solver.schedule.best, solver.schedule.since = state.plateau_best, state.plateau_since
    solver.watch.begin(state.recent_loss)
    solver.resumed = True
    passes = state.iter * max(solver.message.iter_size, 1)
    cursors = {(c.net, c.layer): c for c in state.cursor}
    for runner in solver.runners:
        runner.restore(cursors)
        runner.restore_carried(state.carried)
    solver.runners[0].forwards = passes
    solver.log("SGDSolver: restoring history", "sgd_solver.cpp:336")


def _find_weights(name: str, state_path: str) -> str:
    """The file that the state names: where it lies beside the state, that one, for the two were written together, and a
    folder that the run is resumed in may hold weights of the same name from another run."""
    if not name:
        return ""
    beside = os.path.join(os.path.dirname(state_path), os.path.basename(name))
    for candidate in (beside, name):
        if os.path.exists(candidate):
            return candidate
    gone = name if name == beside else f"{name}, nor is there {beside}"
    raise UsageError(f"{state_path}: the weights it belongs to are gone: {gone}")


def _checked_history(
    training: Training, history: Sequence[np.ndarray[Any, Any]], kind: str, path: str
) -> list[tuple[Any, np.ndarray[Any, Any]]]:
    columns = list(training.history.values())
    groups = len(columns[0]) if columns else 0
    wanted = len(columns) * groups
    if len(history) != wanted:
        raise WeightsError(
            f"{path}: holds {len(history)} history blobs, this net with solver type {kind} has {wanted} "
            f"({len(columns)} parameters, {groups} each)",
            None,
            ["resume with the net and the solver type that wrote it, or start from its weights with --weights"],
        )
    tensors = [column[i] for i in range(groups) for column in columns]
    for tensor, values in zip(tensors, history, strict=True):
        if values.size != tensor.spec.count:
            got = " ".join(map(str, values.shape))
            raise WeightsError(f"{path}: the history of {tensor.name} has the shape {got}, wanted {tensor.spec}")
    return list(zip(tensors, history, strict=True))
