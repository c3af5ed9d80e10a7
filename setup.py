"""Compiles the schema in proto/ while the package is built; everything else stands in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SCHEMA = "netrun/config/schema"
FILES = ("layer", "legacy", "netrun")
NO_COMPILER = """
netrun's schema (proto/*.proto) is compiled while the package is built, and that needs the Python package grpcio-tools,
which this Python lacks. Either let pip fetch it (leave out --no-build-isolation), or install it first:
    python -m pip install grpcio-tools
"""


def compile_schema(target: Path) -> None:
    """Write the descriptors (with and without comments) and the type stubs of proto/*.proto under ``target``.

    Only descriptors are shipped, no generated Python: the message classes are made when the package is imported, so
    that the installed protobuf need not match the one the package was built with.
    """
    try:
        from grpc_tools import protoc  # a build requirement, absent at run time
    except ImportError as error:
        raise SystemExit(f"{NO_COMPILER}({error})") from None

    out = target / SCHEMA
    out.mkdir(parents=True, exist_ok=True)
    sources = [f"{SCHEMA}/{name}.proto" for name in FILES]
    for flags in (
        [f"--pyi_out={target}", f"--descriptor_set_out={out / 'schema.desc'}"],
        ["--include_source_info", f"--descriptor_set_out={out / 'comments.desc'}"],
    ):
        if protoc.main(["protoc", f"-I{SCHEMA}={ROOT / 'proto'}", *flags, *sources]) != 0:
            raise SystemExit("proto/: the schema does not compile (see the message above)")


class BuildWithSchema(build_py):
    """build_py that adds the compiled schema: to the wheel, or beside the sources of an editable install."""

    def run(self) -> None:
        if self.editable_mode:
            compile_schema(ROOT)
            super().run()
            return
        built = Path(self.build_lib).resolve()
        if ROOT / "build" in built.parents:
            # What an earlier build left here would be packed as well: modules that are gone by now.
            shutil.rmtree(built, ignore_errors=True)
        super().run()
        # After the copy: the sources may hold the descriptors of an older editable install.
        compile_schema(built)


setup(cmdclass={"build_py": BuildWithSchema})
