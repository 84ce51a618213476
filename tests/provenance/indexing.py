"""Programs that read or write at indices."""

import torch
import torch.nn.functional as F

from tests.provenance.analysed import B, samples, shared
from tests.provenance.program import program

aten = torch.ops.aten
put, cast = aten.index_put, torch.ops.prims.convert_element_type
T, D = 4, 5
X = samples(B, T, D)
IDS = samples(B, T, integers=7)
PLACES = shared(2, integers=3)

INDEXING = [
    program("embedding", 0, lambda w, i: F.embedding(i, w), shared(7, D), IDS),
    program("table of samples", "refused", lambda w, i: F.embedding(i, w), samples(B, D), shared(2, integers=3)),
    program(
        "embedding backward",
        "sum",
        lambda g, i: aten.embedding_dense_backward(g, i, 7, -1, False),
        X,
        IDS,
    ),
    program(
        "embedding backward by count", "refused", lambda g, i: aten.embedding_dense_backward(g, i, 7, -1, True), X, IDS
    ),
    program("position of each sample", 0, lambda x, i: x[torch.arange(x.shape[0]), i], X, samples(B, integers=T)),
    program("position of another type", "position", lambda x: cast(torch.arange(x.shape[0]), torch.int32), X),
    program("read at places of a sum", "refused", lambda x, i: x.sum((0, 2)).gather(0, i), X, shared(2, integers=T)),
    program("position used as data", "refused", lambda x, w: x * w[torch.arange(x.shape[0])], samples(B), shared(9)),
    program("pick samples", "refused", lambda x, i: x[i], X, shared(2, integers=3)),
    program("pick features", 0, lambda x, i: x[:, i], X, shared(2, integers=T)),
    program("gather", 0, lambda x, i: x.gather(1, i), samples(B, T), samples(B, 2, integers=T)),
    program("gather over samples", "refused", lambda x, i: x.gather(0, i), samples(B, T), shared(2, T, integers=3)),
    program("gather from a table", 0, lambda w, i: w.gather(0, i), shared(7, T), samples(B, T, integers=7)),
    program("scatter", 0, lambda x, i, y: x.scatter(1, i, y), samples(B, T), samples(B, 2, integers=T), samples(B, 2)),
    program("scatter a value", 0, lambda x, i: x.scatter(1, i, 1.0), samples(B, T), samples(B, 2, integers=T)),
    program(
        "scatter over samples",
        "refused",
        lambda x, i, y: x.scatter(0, i, y),
        samples(B, T),
        shared(2, T, integers=3),
        shared(2, T),
    ),
    program(
        "scatter_add",
        0,
        lambda x, i, y: x.scatter_add(1, i, y),
        samples(B, T),
        samples(B, 2, integers=T),
        samples(B, 2),
    ),
    program(
        "scatter_add to zeros",
        "sum",
        lambda i, y: y.new_zeros(7, T).scatter_add(0, i, y),
        samples(B, T, integers=7),
        samples(B, T),
    ),
    program(
        "scatter_add to ones",
        "refused",
        lambda i, y: y.new_ones(7, T).scatter_add(0, i, y),
        samples(B, T, integers=7),
        samples(B, T),
    ),
    program(
        "scatter_reduce",
        0,
        lambda x, i, y: x.scatter_reduce(1, i, y, "amax"),
        samples(B, T),
        samples(B, 2, integers=T),
        samples(B, 2),
    ),
    program(
        "scatter_reduce to zeros",
        "refused",
        lambda i, y: y.new_zeros(7, T).scatter_reduce(0, i, y, "amax"),
        samples(B, T, integers=7),
        samples(B, T),
    ),
    program("index_put into zeros", "sum", lambda i, y: y.new_zeros(7, D).index_put((i,), y, True), IDS, X),
    program("index_put into ones", "refused", lambda i, y: y.new_ones(7, D).index_put((i,), y, True), IDS, X),
    program("index_put overwriting", "refused", lambda i, y: y.new_zeros(7, D).index_put((i,), y, False), IDS, X),
    program("shared values among features", 0, lambda x, i, w: put(x, [None, i], w), X, PLACES, shared(2, D)),
    program("shared values among samples", "refused", lambda x, i, w: put(x, [i], w), X, PLACES, shared(2, T, D)),
    program(
        "index_put among features of merged axes",
        0,
        lambda x, i, y: put(x.view(-1, D), [None, i], y.view(-1, 2)),
        X,
        PLACES,
        samples(B, T, 2),
    ),
    program(
        "index_put of a sum",
        "sum",
        lambda x, i: put(x.new_zeros(2, 7), [None, i], x.sum((0, 1))[None].expand(2, D), True),
        X,
        shared(D, integers=7),
    ),
    program(
        "scatter of a sum", "sum", lambda x, i: x.new_zeros(7).scatter(0, i, x.sum((0, 1))), X, shared(D, integers=7)
    ),
    program(
        "scatter_add of a sum",
        "sum",
        lambda x, i: x.new_zeros(7).scatter_add(0, i, x.sum((0, 1))),
        X,
        shared(D, integers=7),
    ),
    program(
        "largest of a sum",
        "refused",
        lambda x, i: x.new_zeros(7).scatter_reduce(0, i, x.sum((0, 1)), "amax"),
        X,
        shared(D, integers=7),
    ),
    program(
        "index_put in its own row",
        0,
        lambda x, i, y: x.index_put((torch.arange(x.shape[0]), i), y),
        X,
        samples(B, integers=T),
        samples(B, D),
    ),
]
