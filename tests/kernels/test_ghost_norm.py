"""The kernel of the ghost norm is the sum over all pairs of positions, to within the bound that it gives with it.

It needs no room that grows with the pairs.

Without a GPU, `TRITON_INTERPRET=1 pytest tests/kernels` runs it where triton is installed, which a CPU build of torch
does not bring along; without that variable, it is compiled there for several GPUs.
"""

import os
import re
from importlib.util import find_spec
from types import SimpleNamespace

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
    pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning"),
]

# B, T, p, d, with tiles of 16: none, one and several of them, of even and of odd number, and edges everywhere.
SIZES = [(2, 1, 1, 1), (3, 16, 16, 16), (2, 17, 5, 33), (1, 48, 3, 140), (2, 130, 20, 7), (2, 0, 3, 3), (0, 20, 3, 3)]
SMALL_TILES = {"BLOCK_T": 16, "BLOCK_K": 16}


def draw(device: str, dtype: torch.dtype, num_samples: int, length: int, rows: int, columns: int):
    """u and v, neither of which lies in memory in the order of its axes."""
    u = torch.randn(num_samples, rows, length, device=device).mT
    v = torch.randn(length, num_samples, 2 * columns, device=device).transpose(0, 1)[..., ::2]
    return u.to(dtype), v.to(dtype)


def in_double(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return gram_dot(u.double(), u.double(), v.double(), v.double())


def norms(x: torch.Tensor) -> torch.Tensor:
    return x.double().norm(dim=-1)


def launched(u: torch.Tensor, v: torch.Tensor, **tiles: int) -> torch.Tensor:
    return launch(add_up_pairs, u, v, norms(u), norms(v), **(tiles or SMALL_TILES))


def assert_within_bounds(found: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> None:
    value, error = found
    assert found.dtype == torch.float64
    assert value.shape == (u.shape[0],)
    assert ((value - in_double(u, v)).abs() <= error).all()


def assert_right(found: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> None:
    """Of operands that do not cancel, the bound is small as well."""
    assert_within_bounds(found, u, v)
    assert (found[1] <= 1e-3 * found[0]).all(), found


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", SIZES)
def test_all_pairs_of_positions(sizes, dtype, device):
    if device == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as integers")
    u, v = draw(device, dtype, *sizes)
    found = launched(u, v)
    assert_right(found, u, v)
    torch.testing.assert_close(found[0], in_double(u, v), rtol=1e-5, atol=0)


@pytest.mark.parametrize("device", PLACES)
def test_a_program_takes_several_pairs(device, monkeypatch):
    monkeypatch.setattr("dpgraph.kernels.ghost_norm.MOST_PROGRAMS", 4)
    u, v = draw(device, torch.float32, 2, 16 * 11, 4, 3)
    assert_right(launched(u, v), u, v)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("columns", [3, 300])
def test_what_cancels_is_within_its_bound(columns, device):
    u, v = draw(device, torch.float32, 3, 130, 40, columns)
    u = 1e4 * u[:, :1] * (1 + 1e-6 * u)
    v = v[:, :1] * (1 - 2 * (torch.arange(130, device=device) % 2)[:, None]) * (1 + 1e-6 * v)
    found = launched(u, v)
    assert_within_bounds(found, u, v)
    assert (found[1] > found[0].abs()).all()
    # a share of what would be without signs
    assert (found[1] <= 1e-3 * in_double(u, v.abs())).all()


@pytest.mark.parametrize("device", PLACES)
def test_products_that_are_all_rounded_one_way(device):
    u = torch.full((2, 40, 3000), 1 / 3, device=device)
    v = torch.full((2, 40, 50), 0.1, device=device)
    assert_right(launched(u, v), u, v)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("columns", [7, 300])
def test_what_is_cut_to_tf32_is_within_its_bound(columns, device, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(fp32_precision="tf32"))
    # just below the next number of tf32: all that there is to lose is lost
    x = torch.full((2, 40, columns), 1 + 2.0**-10 - 2.0**-23, device=device)
    # the interpreter cuts nothing, and gets what is left
    given = torch.ones_like(x) if device == "cpu" else x
    found = launch(add_up_pairs, given, given, norms(x), norms(x), **SMALL_TILES)
    assert_within_bounds(found, x, x)
    assert (found[1] <= 1e-2 * found[0]).all()


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("scale", [1e-10, 1e-20, 1e-30, 1e-42])
def test_what_underflows_is_within_its_bound(scale, device):
    u, v = draw(device, torch.float32, 3, 40, 5, 50)
    u[:2, ::2] *= scale
    v[1] *= scale
    u[2] *= scale
    v[2] *= scale
    assert_within_bounds(launched(u, v), u, v)
    assert_within_bounds(launched(v, u), v, u)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("scale", [1e10, 1e20])
def test_what_overflows_has_a_bound_or_none(scale, device):
    u, v = draw(device, torch.float32, 2, 40, 5, 50)
    value, error = launched(scale * u, v)
    off = (value - in_double(scale * u, v)).abs()
    assert ((off <= error) | ~(value + error).isfinite()).all()


@pytest.mark.parametrize("device", PLACES)
def test_zeros_are_exact(device):
    u, v = draw(device, torch.float32, 3, 40, 5, 6)
    u[0], v[1] = 0, 0
    u[2, ::2], v[2, 1::2] = 0, 0
    assert torch.equal(launched(u, v), torch.zeros(2, 3, dtype=torch.float64, device=device))


@pytest.mark.parametrize("device", PLACES)
def test_sizes_may_be_larger(device):
    u, v = draw(device, torch.float32, 2, 40, 5, 6)
    least = launched(u, v)
    found = launch(add_up_pairs, u, v, 3 * norms(u), 2 * norms(v), **SMALL_TILES)
    assert torch.equal(found[0], least[0])
    assert (found[1] > 2 * least[1]).all()


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_sample(value, device):
    u, v = draw(device, torch.float32, 3, 40, 5, 6)
    clean = launched(u, v)
    u[1, 39, 2] = value
    found = launched(u, v)
    assert not found[:, 1].isfinite().any()
    assert torch.equal(found[:, ::2], clean[:, ::2])


@pytest.mark.parametrize("device", PLACES)
def test_operands_of_two_dtypes(device):
    u, v = draw(device, torch.float32, 2, 20, 5, 6)
    assert_right(launched(u.half(), v), u.half(), v)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("config", CONFIGS if HAS_TRITON else [], ids=str)
def test_every_size_of_tiles_that_is_tried(config, device):
    u, v = draw(device, torch.float32, 1, 3 * SMALLEST_TILE + 1, 40, 170)
    tiles = config.all_kwargs() if device == "cuda" else config.kwargs
    assert_right(launched(u, v, **tiles), u, v)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestOnGpu:
    """What an interpreter has no say in."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
    def test_the_operator(self, dtype):
        u, v = draw("cuda", dtype, 3, 2049, 100, 70)
        assert_right(torch.ops.dpgraph.ghost_norm(u, v)[:2], u, v)

    def test_the_same_input_gives_the_same_bits(self):
        u, v = draw("cuda", torch.float32, 2, 3000, 64, 64)
        assert torch.equal(tiled(u, v), tiled(u, v))

    def test_room_is_a_few_numbers_for_each_position(self):
        for length in (1024, 4096, 32768):
            # two numbers of a program, and for a position of u and of v, at most four in float64 at once
            assert self._added_bytes(length) <= 2 * (2 * 8 * 1024 + 4 * 8 * length) + 8192

    def _added_bytes(self, length: int) -> int:
        u, v = draw("cuda", torch.bfloat16, 2, length, 64, 64)
        size_u, size_v = norms(u), norms(v)
        tiled_norm_sq(u, v, size_u, size_v)  # the sizes of tiles are tried
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        tiled_norm_sq(u, v, size_u, size_v)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before


def tiled(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return tiled_norm_sq(u, v, norms(u), norms(v))


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
        pointers = {"u": f"*{of_u}", "v": f"*{of_v}", "a": "*fp32", "b": "*fp32", "sums": "*fp64"}
        kinds = {name: "constexpr" if name in constants else "i32" for name in add_up_pairs.arg_names} | pointers
        source = ASTSource(fn=add_up_pairs, signature=kinds, constexprs=constants)
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert compiled.asm["cubin"]
        assert_added_up_as_bounded(compiled.asm, config.kwargs["BLOCK_T"], precision, {of_u, of_v})


def assert_added_up_as_bounded(code, block_t: int, precision: str, dtypes: set[str]) -> None:
    # for u and for v: a group within the loop and the last one after it, then two in the bound
    additions = re.findall(rf"arith\.addf [^\n]*tensor<{block_t}x{block_t}xf32", code["ttgir"])
    assert len(additions) == 6
    # a tensor core multiplies all but float32 that is not cut
    assert ("mma" in code["ptx"]) == (dtypes != {"fp32"} or precision == "tf32")
