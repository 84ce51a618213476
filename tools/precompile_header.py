"""Have g++ parse the header of Inductor's kernels once for this environment, and not for every kernel again.

    python tools/precompile_header.py

That header takes two seconds, most of what the compilation of a kernel takes, and the tests compile thousands. g++ by
itself takes a precompiled header that lies beside the one that is included and was made with the same options and
macros; any other it passes over. What is compiled stays the same.
"""

import shlex
import subprocess
from pathlib import Path

import torch
from torch._inductor.cpp_builder import CppBuilder, CppTorchDeviceOptions, is_gcc
from torch._inductor.cpu_vec_isa import VecISA, invalid_vec_isa, pick_vec_isa

HEADER = Path(torch.__file__).parent / "include" / "torch" / "csrc" / "inductor" / "cpp_prefix.h"


def precompile(isa: VecISA, target: Path) -> None:
    """Write what kernels with these instructions can use."""
    options = CppTorchDeviceOptions(vec_isa=isa, device_type="cpu", precompiling=True)
    builder = CppBuilder(name=str(HEADER), sources=str(HEADER), BuildOption=options)
    command = shlex.split(builder.get_command_line())
    unfinished = target.with_name("unfinished")
    command[command.index("-o") + 1] = str(unfinished)
    subprocess.run(command, check=True, capture_output=True)
    unfinished.rename(target)


def main() -> None:
    """For kernels that use vector instructions, and for those that do not."""
    if not is_gcc():
        return
    folder = HEADER.with_name(HEADER.name + ".gch")
    folder.mkdir(exist_ok=True)
    for name, isa in (("vector", pick_vec_isa()), ("scalar", invalid_vec_isa)):
        if not (folder / name).exists():
            precompile(isa, folder / name)


if __name__ == "__main__":
    main()
