"""The kernel of the ghost norm is the sum over all pairs of positions, and needs no room that grows with them.

Without a GPU, `TRITON_INTERPRET=1 pytest tests/kernels` runs it where triton is installed, which a CPU build of torch
does not bring along; without that variable, it is compiled there for several GPUs.
"""

import os
from importlib.util import find_spec

import pytest
import torch

from dpgraph.gradients.gram import gram_dot

HAS_TRITON = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if HAS_TRITON:
    import triton

    from dpgraph.kernels.ghost_norm import CONFIGS, SMALLEST_TILE, add_up_pairs, launch, tiled_norm_sq

on_gpu = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
in_interpreter = pytest.mark.skipif(not (HAS_TRITON and INTERPRETED), reason="needs triton and TRITON_INTERPRET=1")
PLACES = [pytest.param("cuda", marks=on_gpu), pytest.param("cpu", marks=in_interpreter, id="interpreter")]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:triton.*"),
    # of NumPy, in the interpreter
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]

# B, T, p, d, with tiles of 16: none, one and several of them, of even and of odd number, and edges everywhere.
SIZES = [(2, 1, 1, 1), (3, 16, 16, 16), (2, 17, 5, 33), (1, 48, 3, 40), (2, 130, 20, 7), (2, 0, 3, 3), (0, 20, 3, 3)]


def draw(device: str, dtype: torch.dtype, num_samples: int, length: int, rows: int, columns: int):
    """u and v, neither of which lies in memory in the order of its axes."""
    u = torch.randn(num_samples, rows, length, device=device).mT
    v = torch.randn(length, num_samples, 2 * columns, device=device).transpose(0, 1)[..., ::2]
    return u.to(dtype), v.to(dtype)


def in_double(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return gram_dot(u.double(), u.double(), v.double(), v.double()).float()


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", SIZES)
def test_all_pairs_of_positions(sizes, dtype, device):
    if device == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as integers")
    u, v = draw(device, dtype, *sizes)
    found = launch(add_up_pairs, u, v, BLOCK_T=16, BLOCK_K=16)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, in_double(u, v), rtol=1e-5, atol=0)


@pytest.mark.parametrize("device", PLACES)
def test_a_program_takes_several_pairs(device, monkeypatch):
    monkeypatch.setattr("dpgraph.kernels.ghost_norm.MOST_PROGRAMS", 4)
    u, v = draw(device, torch.float32, 2, 16 * 11, 4, 3)
    torch.testing.assert_close(launch(add_up_pairs, u, v, BLOCK_T=16, BLOCK_K=16), in_double(u, v), rtol=1e-5, atol=0)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_sample(value, device):
    u, v = draw(device, torch.float32, 3, 40, 5, 6)
    clean = launch(add_up_pairs, u, v, BLOCK_T=16, BLOCK_K=16)
    u[1, 39, 2] = value
    found = launch(add_up_pairs, u, v, BLOCK_T=16, BLOCK_K=16)
    assert not found[1].isfinite()
    assert torch.equal(found[::2], clean[::2])


@pytest.mark.parametrize("device", PLACES)
def test_operands_of_two_dtypes(device):
    u, v = draw(device, torch.float32, 2, 20, 5, 6)
    found = launch(add_up_pairs, u.half(), v, BLOCK_T=16, BLOCK_K=16)
    torch.testing.assert_close(found, in_double(u.half(), v), rtol=1e-5, atol=0)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("config", CONFIGS if HAS_TRITON else [], ids=str)
def test_every_size_of_tiles_that_is_tried(config, device):
    u, v = draw(device, torch.float32, 1, 3 * SMALLEST_TILE + 1, 40, 70)
    tiles = config.all_kwargs() if device == "cuda" else config.kwargs
    torch.testing.assert_close(launch(add_up_pairs, u, v, **tiles), in_double(u, v), rtol=1e-5, atol=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestOnGpu:
    """What an interpreter has no say in."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
    def test_the_operator(self, dtype):
        u, v = draw("cuda", dtype, 3, 2049, 100, 70)
        found = torch.ops.dpgraph.ghost_norm_sq(u, v)
        assert found.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(found.float(), in_double(u, v), rtol=1e-5, atol=0)

    def test_the_same_input_gives_the_same_bits(self):
        u, v = draw("cuda", torch.float32, 2, 3000, 64, 64)
        assert torch.equal(tiled_norm_sq(u, v), tiled_norm_sq(u, v))

    def test_room_does_not_grow_with_the_number_of_positions(self):
        added = {length: self._added_bytes(length) for length in (1024, 4096, 32768)}
        assert max(added.values()) <= 2 * 4 * 1025 + 1024, added

    def _added_bytes(self, length: int) -> int:
        u, v = draw("cuda", torch.bfloat16, 2, length, 64, 64)
        tiled_norm_sq(u, v)  # the sizes of tiles are tried
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        tiled_norm_sq(u, v)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before


SIGNATURES = [("bf16", "bf16", "ieee"), ("fp16", "fp32", "ieee"), ("fp32", "fp32", "ieee"), ("fp32", "fp32", "tf32")]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRITON or INTERPRETED, reason="needs triton, and not TRITON_INTERPRET=1")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("of_u", "of_v", "precision"), SIGNATURES)
def test_it_compiles_for_a_gpu_that_is_not_there(of_u, of_v, precision, capability):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for config in CONFIGS:
        constants = {"PRECISION": precision, **config.kwargs}
        pointers = {"u": f"*{of_u}", "v": f"*{of_v}", "sums": "*fp32"}
        kinds = {name: "constexpr" if name in constants else "i32" for name in add_up_pairs.arg_names} | pointers
        source = ASTSource(fn=add_up_pairs, signature=kinds, constexprs=constants)
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert compiled.asm["cubin"]
