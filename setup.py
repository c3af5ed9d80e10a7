"""Compiles the schema in proto/ while the package is built; everything else stands in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SCHEMA = "netrun/config/schema"
FILES = ("layer", "legacy", "netrun")


def compile_schema(target: Path) -> None:
    """Write the descriptors (with comments) and the type stubs of proto/*.proto under ``target``.

    Only descriptors are shipped, no generated Python: the message classes are made when the package is imported, so
    that the installed protobuf need not match the one the package was built with.
    """
    from grpc_tools import protoc  # a build requirement, absent at run time

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
    """build_py that compiles the schema first: into the wheel, or beside the sources of an editable install."""

    def run(self) -> None:
        compile_schema(ROOT if self.editable_mode else Path(self.build_lib))
        super().run()


setup(cmdclass={"build_py": BuildWithSchema})
