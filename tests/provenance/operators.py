"""Programs of operators that few models have: pooling, sampling, attention backwards, and ops that make values."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.provenance.analysed import B, samples, shared
from tests.provenance.program import program

aten = torch.ops.aten
X = samples(B, 4, 5)
NORMAL = {"mean": 0.0, "std": 1.0, "dtype": torch.float64, "device": torch.device("cpu"), "requires_grad": False}
IMAGES, BIG, SMALL = samples(B, 2, 6, 6), samples(B, 2, 12, 12), samples(B, 2, 3, 3)
SQUARES = samples(B, 4, 4)
VOLUMES, CUBES = samples(B, 2, 4, 4, 4), samples(B, 2, 2, 2, 2)


def unused(x: Tensor, memory: Tensor) -> Tensor:
    """x, in a way that reads memory."""
    return torch.where(x == x, x, memory)


OPERATORS = [
    program("times a number of the samples", "refused", lambda x: x * x.sum().item(), X),
    program("adaptive pool backward", 0, lambda g, x: aten._adaptive_avg_pool2d_backward(g, x), SMALL, BIG),
    program("adaptive max pool", (0, 0), lambda x: aten.adaptive_max_pool2d(x, [4, 4]), samples(B, 2, 7, 7)),
    program(
        "adaptive max pool backward",
        0,
        lambda g, x: aten.adaptive_max_pool2d_backward(g, x, aten.adaptive_max_pool2d(x, [4, 4])[1]),
        samples(B, 2, 4, 4),
        samples(B, 2, 7, 7),
    ),
    program(
        "large windows", (0, 0), lambda x: aten.max_pool2d_with_indices(x, [12, 12], [1, 1]), samples(B, 2, 13, 13)
    ),
    program(
        "large windows backward",
        0,
        lambda g, x: aten.max_pool2d_with_indices_backward(
            g, x, [6, 6], [1, 1], [0, 0], [1, 1], False, aten.max_pool2d_with_indices(x, [6, 6], [1, 1])[1]
        ),
        samples(B, 2, 7, 7),
        BIG,
    ),
    program("average pool of volumes", 0, lambda x: F.avg_pool3d(x, 2), VOLUMES),
    program(
        "average pool of volumes backward",
        0,
        lambda g, x: aten.avg_pool3d_backward(g, x, [2] * 3, [2] * 3, [0] * 3, False, True, None),
        CUBES,
        VOLUMES,
    ),
    program("max pool of volumes", (0, 0), lambda x: aten.max_pool3d_with_indices(x, [2] * 3, [2] * 3), VOLUMES),
    program(
        "max pool of volumes backward",
        0,
        lambda g, x: aten.max_pool3d_with_indices_backward(
            g, x, [2] * 3, [2] * 3, [0] * 3, [1] * 3, False, aten.max_pool3d_with_indices(x, [2] * 3, [2] * 3)[1]
        ),
        CUBES,
        VOLUMES,
    ),
    program(
        "upsample backward",
        0,
        lambda g: aten.upsample_nearest2d_backward(g, [6, 6], [g.shape[0], 2, 3, 3]),
        IMAGES,
    ),
    program("upsample bilinearly", 0, lambda x: aten.upsample_bilinear2d(x, [6, 6], False), SMALL),
    program("upsample", 0, lambda x: aten.upsample_nearest2d(x, [6, 6]), SMALL),
    program("grid sample", 0, lambda x, p: aten.grid_sampler_2d(x, p.tanh(), 0, 0, False), IMAGES, samples(B, 3, 3, 2)),
    program(
        "grid sample of channels that are samples at rows of points that are",
        "refused",
        lambda x, p: aten.grid_sampler_2d(x, p.tanh(), 0, 0, False),
        samples(2, B, 6, 6),
        samples(2, B, 3, 2),
    ),
    program(
        "grid sample of volumes",
        0,
        lambda x, p: aten.grid_sampler_3d(x, p.tanh(), 0, 0, False),
        VOLUMES,
        samples(B, 2, 2, 2, 3),
    ),
    program(
        "grid sample of volumes backward",
        (0, 0),
        lambda g, x, p: aten.grid_sampler_3d_backward(g, x, p.tanh(), 0, 0, False, [True, True]),
        CUBES,
        VOLUMES,
        samples(B, 2, 2, 2, 3),
    ),
    program(
        "written to the places of samples that the data decide",
        "refused",
        lambda x, i: x.new_zeros(x.shape[0], 5).index_put([i], x, accumulate=True),
        samples(B, 5),
        samples(B, integers=2),
    ),
    program("variance over the first axis", 0, lambda x: aten.var.correction(x, [0]), samples(3, B)),
    program(
        "joined places in the batch",
        "refused",
        lambda x: torch.cat([torch.arange(x.shape[0]), torch.arange(x.shape[0])]),
        X,
    ),
    program(
        "attention backward",
        (0, 0, 0),
        lambda g, q, k, v: aten._scaled_dot_product_flash_attention_for_cpu_backward(
            g, q, k, v, *aten._scaled_dot_product_flash_attention_for_cpu(q, k, v), 0.0, False
        ),
        *[samples(B, 2, 4, 8)] * 4,
    ),
    program("adaptive pool of volumes", 0, lambda x: F.adaptive_avg_pool3d(x, 3), VOLUMES),
    program(
        "adaptive pool of volumes backward", 0, lambda g, x: aten._adaptive_avg_pool3d_backward(g, x), CUBES, VOLUMES
    ),
    program("adaptive max pool of volumes", (0, 0), lambda x: aten.adaptive_max_pool3d(x, [2] * 3), VOLUMES),
    program(
        "adaptive max pool of volumes backward",
        0,
        lambda g, x: aten.adaptive_max_pool3d_backward(g, x, aten.adaptive_max_pool3d(x, [2] * 3)[1]),
        CUBES,
        VOLUMES,
    ),
    program("replicated edges of lines", 0, lambda x: aten.replication_pad1d(x, [1, 1]), X),
    program(
        "replicated edges of lines backward",
        0,
        lambda g, x: aten.replication_pad1d_backward(g, x, [1, 1]),
        samples(B, 4, 7),
        X,
    ),
    program("replicated edges", 0, lambda x: aten.replication_pad2d(x, [1] * 4), IMAGES),
    program(
        "replicated edges backward",
        0,
        lambda g, x: aten.replication_pad2d_backward(g, x, [1] * 4),
        samples(B, 2, 8, 8),
        IMAGES,
    ),
    program("replicated edges of volumes", 0, lambda x: aten.replication_pad3d(x, [1] * 6), CUBES),
    program(
        "replicated edges of volumes backward",
        0,
        lambda g, x: aten.replication_pad3d_backward(g, x, [1] * 6),
        VOLUMES,
        CUBES,
    ),
    program("median", (0, 0), lambda x: tuple(x.median(1)), X),
    program("median over the samples", ("refused", "refused"), lambda x: tuple(x.median(0)), X),
    program("median of what is a number", (0, 0), lambda x: tuple(x.nanmedian(-1)), X),
    program("most frequent", (0, 0), lambda x: tuple(x.round().mode(1, True)), X),
    program("second smallest", (0, 0), lambda x: tuple(x.kthvalue(2, 1)), X),
    program("second smallest of the samples", ("refused", "refused"), lambda x: tuple(x.kthvalue(2, 0)), X),
    program(
        "conjugates",
        0,
        lambda x: torch.view_as_real(aten._conj(torch.view_as_complex(x)).resolve_conj()),
        samples(B, 4, 2),
    ),
    program("factors", (0, 0, 0), lambda x: tuple(aten.linalg_lu(x)), SQUARES),
    program("squeeze all", 0, lambda x: aten.squeeze.default(x), samples(B, 1, 5)),
    program("squeeze all before", 0, lambda x: aten.squeeze.default(x), samples(1, B, 5)),
    program("sizes of eigenvalues", 0, lambda x: torch.linalg.eigvals(x).abs(), SQUARES),
    # the claims of random numbers are about how they are drawn, of memory about nothing
    program("normal", 0, lambda x: x + torch.randn(x.shape[0], 1, 1), X),
    program("normal like", 0, lambda x: x + torch.randn_like(x), X),
    program("uniform", 0, lambda x: x + torch.rand(x.shape[0], 1, 1), X),
    program("uniform between bounds", 0, lambda x: x + aten.uniform(x, 1.0, 2.0), X),
    program("normal with moments", 0, lambda x: x + aten.normal_functional(x, 1.0, 2.0), X),
    program("exponential", 0, lambda x: x + aten.exponential(x), X),
    program("integers", 0, lambda x: x + torch.randint(5, (x.shape[0], 1, 1)), X),
    program("integers from a bound", 0, lambda x: x + torch.randint(2, 5, (x.shape[0], 1, 1)), X),
    program("integers like", 0, lambda x: x + torch.randint_like(x, 5), X),
    program("coins", 0, lambda x: x * aten.bernoulli.p(x, 0.5), X),
    program("made of one value", 0, lambda x: x + torch.full_like(x, 2) + x.new_full((x.shape[0], 1, 1), 3), X),
    program("memory in an order", 0, lambda x: unused(x, torch.empty_strided((x.shape[0], 4, 5), (20, 5, 1))), X),
    program("memory", 0, lambda x: unused(x, x.new_empty(x.shape[0], 4, 5)), X),
    program("memory like", 0, lambda x: unused(x, torch.empty_like(x)), X),
    program("strided memory", 0, lambda x: unused(x, x.new_empty_strided((x.shape[0], 4, 5), (20, 5, 1))), X),
    program("zeros", 0, lambda x: x + x.new_zeros(x.shape[0], 1, 1), X),
    program("uniform like", 0, lambda x: x + torch.rand_like(x), X),
    program("primitive normal", 0, lambda x: x + torch.ops.prims.normal(x.shape, **NORMAL), X),
    program("sum and zeros like a shared value", "sum", lambda x, w: x.sum(0) + torch.full_like(w, 0), X, shared(4, 5)),
    program(
        "sum and ones like a shared value", "refused", lambda x, w: x.sum(0) + torch.full_like(w, 1), X, shared(4, 5)
    ),
    program("scaled", 0, lambda x: aten.mul.Scalar(aten.div.Scalar(x, 2), 3), X),
]
