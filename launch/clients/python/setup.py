"""Generates the wire messages from the proto while the package is built, so that nobody needs protoc."""

import pathlib
import shutil

from grpc_tools import protoc
from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
NAME = "sam4mllm/v1/perception.proto"


def proto_root() -> pathlib.Path:
    """The repository's `proto/`, or the copy that a source distribution carries."""
    for root in (HERE.parents[2] / "proto", HERE / "proto"):
        if (root / NAME).exists():
            return root
    raise FileNotFoundError(f"{NAME}: build this package inside the repository, or from its source distribution")


class Build(build_py):
    """`sam4mllm/v1/perception_pb2*.py` beside the package's own modules."""

    def run(self):
        super().run()
        root, out = proto_root(), pathlib.Path(self.build_lib)
        arguments = ["protoc", f"-I{root}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", NAME]
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"protoc failed on {root / NAME}")
        (out / "sam4mllm/v1/__init__.py").write_text('"""The wire messages, generated from the proto."""\n')


class Source(sdist):
    """Carries the proto along."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        target = pathlib.Path(base_dir) / "proto" / NAME
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(proto_root() / NAME, target)


setup(cmdclass={"build_py": Build, "sdist": Source})
