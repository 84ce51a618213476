"""The compiler takes the precompiled header for the kernels that Inductor has it compile."""

import shlex
import subprocess

import pytest
from torch._inductor.cpp_builder import CppBuilder, CppTorchDeviceOptions
from torch._inductor.cpu_vec_isa import invalid_vec_isa, pick_vec_isa

from tools.precompile_header import HEADER

PRECOMPILED = HEADER.with_name(HEADER.name + ".gch")


@pytest.mark.skipif(not PRECOMPILED.exists(), reason="tools/test makes it, where the compiler is g++")
@pytest.mark.parametrize(("name", "isa"), [("vector", pick_vec_isa()), ("scalar", invalid_vec_isa)])
def test_the_header_is_taken(tmp_path, name, isa):
    kernel = tmp_path / "kernel.cpp"
    kernel.write_text("#include <torch/csrc/inductor/cpp_prefix.h>\n", "utf-8")
    options = CppTorchDeviceOptions(vec_isa=isa, device_type="cpu")
    builder = CppBuilder(name="kernel", sources=str(kernel), BuildOption=options, output_dir=str(tmp_path))
    command = [*shlex.split(builder.get_command_line()), "-H"]  # names the headers read, a precompiled one with "!"
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert f"! {PRECOMPILED / name}" in said
