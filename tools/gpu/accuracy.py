"""Train a net whose accuracy Caffe's documentation gives, whole, and hold what comes out against that.

    python tools/gpu/accuracy.py mnist|cifar10 [--device cuda:0] [--data DIR] [--precision BF16] [--iterations N]

LeNet on MNIST takes 10,000 iterations, the quick net on CIFAR-10 5,000: seconds on a GPU. The databases are those that
`netrun data` makes in configs/; where they are absent they are made of DIR/mnist or DIR/cifar10. Exit status: 0 the
accuracy is reached, 1 it is missed, 77 there are neither databases nor files.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from netrun.config.upgrade import read_solver
from netrun.data.sets import make_cifar10, make_mnist
from netrun.recipe import precision_named
from netrun.solver import Solver

ROOT = Path(__file__).resolve().parents[2]
ABSENT = 77


@dataclass(frozen=True)
class Task:
    """A solver, the databases it reads, and the accuracy that is reached where everything is right.

    Other seeds and devices move the result: LeNet's by 0.1 %, the quick net's by 1 %.
    """

    solver: str
    databases: tuple[str, ...]
    wanted: float


TASKS = {
    "mnist": Task("solver.prototxt", ("mnist_train_lmdb", "mnist_test_lmdb"), 0.988),
    "cifar10": Task("quick_solver.prototxt", ("cifar10_train_lmdb", "cifar10_test_lmdb", "mean.binaryproto"), 0.73),
}
MAKERS = {"mnist": make_mnist, "cifar10": make_cifar10}


def main(argv: list[str] | None = None) -> int:
    """Make the databases, train, test; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=TASKS)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--configs", type=Path, default=ROOT / "configs", help="the folder with mnist/ and cifar10/")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--precision", default="FP32")
    parser.add_argument("--iterations", type=int, help="stop so early; the accuracy wanted stays the same")
    parser.add_argument("--prepare", action="store_true", help="make the databases, nothing more")
    args = parser.parse_args(argv)
    task, folder = TASKS[args.name], args.configs / args.name
    if not _prepared(args.name, task, folder, args.data):
        print(f"left out: {folder} has no databases, and {args.data / args.name} is not there to make them of")
        return ABSENT
    if args.prepare:
        return 0
    message, source = read_solver(str(folder / task.solver))
    message.precision = precision_named(args.precision)
    message.snapshot, message.snapshot_after_train = 0, False
    if args.iterations:
        message.max_iter = args.iterations
    begin = time.perf_counter()
    with Solver(message, device=args.device, source=source, log=lambda text, *_: print(text, flush=True)) as solver:
        solver.solve()
        name, spent = solver.device.name, time.perf_counter() - begin
        accuracy = next(float(o.values) for o in solver.test() if o.name == "accuracy")
        rate = f"{solver.iteration} iterations and tests in {spent:.1f} s"
    verdict = "reached" if accuracy >= task.wanted else "MISSED"
    print(f"{args.name} on {name}, {args.precision}: accuracy {accuracy:.4f}, {task.wanted} {verdict}; {rate}")
    return 0 if accuracy >= task.wanted else 1


def _prepared(name: str, task: Task, folder: Path, data: Path) -> bool:
    """Whether the databases are there, now at the latest."""
    if all((folder / d).exists() for d in task.databases):
        return True
    if not (data / name).is_dir():
        return False
    MAKERS[name](folder, data / name)
    return True


if __name__ == "__main__":
    sys.exit(main())
