"""The command line. ``main`` reads the arguments, runs one command, and turns errors into one message and an exit code.

    arguments.py   every command and flag; loads nothing else, so that --help is quick
    train.py test.py timing.py check.py summary.py plan.py devices.py explain.py data.py features.py
    infer.py gradcheck.py upgrade.py
                   one a command: run(args)
    streams.py     stdout and stderr, whatever the shell made of them
    the rest       what several of them share

Exit codes: those of netrun.errors; 1 if gradcheck finds a wrong gradient, 130 after Ctrl-C, 141 if whoever reads the
output went away, 70 for a mistake of netrun's own.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from ..errors import NetrunError
from .arguments import parse
from .streams import lasting

DATA_EXIT, MEMORY_EXIT, INTERNAL_EXIT, INTERRUPTED_EXIT, PIPE_EXIT = 3, 5, 70, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Never raises for anything a user can do.

    Args:
        argv: the arguments after the program's name; those of this process by default.
    """
    with lasting():
        return _run(list(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except NetrunError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED_EXIT)
    except BrokenPipeError:
        # The interpreter flushes stdout once more when it ends: give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return PIPE_EXIT
    except MemoryError:
        return _fail("out of memory", MEMORY_EXIT)
    except OSError as error:  # a full disk, a file that may not be read: the user's world, not a mistake of ours
        named = f"{error.filename}: " if error.filename else ""
        return _fail(f"{named}{error.strerror or error}", DATA_EXIT)
    except Exception as error:
        if os.environ.get("NETRUN_DEBUG"):
            traceback.print_exc()
        text = f"internal error: {type(error).__name__}: {error}".replace("\n", " ")
        return _fail(f"{text} (run with NETRUN_DEBUG=1 for the traceback)", INTERNAL_EXIT)


def _dispatch(argv: list[str]) -> int:
    command, args = parse(argv)
    if command is None:
        return 0
    module = importlib.import_module(f".{command.module}", __name__)
    code: int = module.run(args)
    return code


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


__all__ = ["main"]
