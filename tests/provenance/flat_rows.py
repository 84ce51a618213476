"""Programs that cut the batch into blocks, point at rows of the flattened batch, or convolve groups of samples."""

import torch
import torch.nn.functional as F

from tests.provenance.analysed import B, samples
from tests.provenance.program import program

X, ROWS = samples(B, 5), samples(B, 3, 5)
OFFSETS = samples(B, 2, integers=3)


def first(x):
    return torch.arange(x.shape[0])[:, None] * x.shape[1]


FLAT = [
    program("blocks of a doubled batch", (0, 0), lambda x: torch.cat([x, x * 2]).split(x.shape[0]), X),
    program(
        "parts that are no blocks",
        ("refused", "refused"),
        lambda x: torch.cat([x, x]).split([x.shape[0] - 1, x.shape[0] + 1]),
        X,
    ),
    program("every third row of three", 0, lambda x: x.flatten(0, 1)[1::3], ROWS),
    program("every second row of three", "refused", lambda x: torch.cat([x, x]).flatten(0, 1)[0::2], ROWS),
    program("a row beyond the first of each", "refused", lambda x: x.flatten(0, 1)[3::3], ROWS),
    program(
        "a block of the batch replaced",
        0,
        lambda x: torch.slice_scatter(torch.cat([x, x]), x.tanh(), 0, x.shape[0], 2 * x.shape[0]),
        X,
    ),
    program(
        "other rows of the batch replaced",
        "refused",
        lambda x: torch.slice_scatter(torch.cat([x, x]), x.tanh(), 0, 1, 1 + x.shape[0]),
        X,
    ),
    program(
        "zeros and samples in blocks", 0, lambda x: torch.cat([torch.zeros_like(x), x, torch.zeros_like(x)]).tanh(), X
    ),
    program(
        "own rows by offsets", 0, lambda x, i: x.flatten(0, 1)[(first(x) + i.clamp(0, 2)).flatten()], ROWS, OFFSETS
    ),
    program("offsets that may leave the rows", "refused", lambda x, i: x.flatten(0, 1)[first(x) + i], ROWS, OFFSETS),
    program(
        "offsets that leave the rows", "refused", lambda x, i: x.flatten(0, 1)[first(x) + i.clamp(0, 3)], ROWS, OFFSETS
    ),
    program(
        "offsets clamped to nothing", "refused", lambda x, i: x.flatten(0, 1)[first(x) + i.clamp(0, -1)], ROWS, OFFSETS
    ),
    program(
        "offsets that may be negative",
        "refused",
        lambda x, i: x.flatten(0, 1)[first(x) + i.clamp_max(2)],
        ROWS,
        OFFSETS,
    ),
    program(
        "own rows by remainders", 0, lambda x, i: x.flatten(0, 1)[(first(x) + (i - 7) % 3).flatten()], ROWS, OFFSETS
    ),
    program("own rows by argmax", 0, lambda x: x.flatten(0, 1)[(first(x) + x.argmax(1)).flatten()], ROWS),
    program("own rows counted", 0, lambda x: x.flatten(0, 1)[(first(x) + torch.arange(3)).flatten()], ROWS),
    program(
        "own rows gathered",
        0,
        lambda x: x.flatten(0, 1).gather(0, (first(x) + x.argmax(1)).flatten()[:, None].expand(-1, 5)),
        ROWS,
    ),
    program(
        "added to own rows",
        0,
        lambda x: (
            torch.zeros_like(x)
            .flatten(0, 1)
            .scatter_add(0, (first(x) + x.argmax(1)).flatten()[:, None].expand(-1, 5), x.flatten(0, 1))
        ),
        samples(B, 5, 5),
    ),
    program("a step back", "refused", lambda x: x[torch.arange(x.shape[0]) - 1], X),
    program("differences of positions", "shared", lambda x: torch.arange(3) - torch.arange(3), X),
    program(
        "a number within its own rows",
        0,
        lambda x, i: ((first(x) + i) - first(x)).double(),
        ROWS,
        OFFSETS,
    ),
    program(
        "a kernel for each sample",
        1,
        lambda x, w: F.conv1d(x.view(1, -1, 5), w.view(-1, 3, 2), groups=x.shape[0]),
        ROWS,
        samples(B, 2, 3, 2),
    ),
    program(
        "a kernel for each channel of each sample",
        1,
        lambda x, w: F.conv1d(x.view(1, -1, 5), w.view(-1, 1, 2), groups=3 * x.shape[0]),
        ROWS,
        samples(B, 3, 2),
    ),
    program(
        "a transposed kernel for each sample",
        1,
        lambda x, w: F.conv_transpose1d(x.view(1, -1, 5), w.view(-1, 2, 2), groups=x.shape[0]),
        ROWS,
        samples(B, 3, 2, 2),
    ),
    program(
        "kernels in another order than images",
        "refused",
        lambda x, w: F.conv1d(x.transpose(0, 1).reshape(1, -1, 5), w.view(-1, 3, 2), groups=x.shape[0]),
        ROWS,
        samples(B, 2, 3, 2),
    ),
]
