"""What to do about an op that mixes samples, by what the user wrote there.

Decompositions take an operator apart before the analysis sees it: `softmax(0)` is refused at the `amax` that it begins
with. The tracer remembers what each node came from, and advice is given for that.
"""

from torch.fx import Node

from dpgraph.provenance.lattice import Refused
from dpgraph.provenance.numbers import COUNTS, ITEM

__all__ = ["GROUP_NORM", "advise", "is_batch_norm", "name_of"]

BATCH = "; give batch_dims if dimension 0 of an input is not the batch"
GROUP_NORM = (
    "use GroupNorm or LayerNorm, or freeze its statistics with eval() on the layer: model.train() undoes that, so call "
    "it again behind, or override train()"
)
FROZEN_OR_PER_SAMPLE = (
    "take the statistics of each sample over its features or positions, as GroupNorm and LayerNorm do, or hold "
    "those of public data in a buffer" + BATCH
)
OWN_SUM = (
    "sum or average within each sample, over features or positions (dim=1 and up), and never over the batch" + BATCH
)
ALONG = "work along features or positions, such as dim=-1, and not along the batch" + BATCH
OWN_ROW = (
    "leave the axis of the samples as it is: pick, shift, join, pad and write along features or positions; "
    "arange(x.shape[0]) may index a sample's own row, and nothing else may tell one sample from another" + BATCH
)
OWN_PARTNERS = (
    "compare a sample with weights, with public data, or with what belongs to it (its negatives as a further axis of "
    "it): what depends on pairs of samples, such as a contrastive loss over the batch, has no bound for one of them"
)
NUMBERS = (
    "keep what is counted a tensor with one value for each sample, and mask by it, as in torch.where(torch.arange(T) < "
    "lengths[:, None], h, 0); or take the number from public data, in a buffer or an argument"
)
UNSHOWN = (
    "write the step so that the samples keep an axis of their own; if that cannot be, leave the parameters behind it "
    "untrained" + BATCH
)
PER_SAMPLE = "compute per sample: reduce over features or positions, never over the batch" + BATCH

ADVICE = {
    FROZEN_OR_PER_SAMPLE: "var var_mean std std_mean native_layer_norm native_group_norm",
    OWN_SUM: "sum mean nansum nanmean linalg_vector_norm norm prod any all amax amin max min aminmax argmax argmin "
    "median nanmedian mode kthvalue quantile nanquantile count_nonzero",
    ALONG: "softmax log_softmax softmin logsumexp sort argsort topk cumsum cumprod cummax cummin logcumsumexp fft_c2c "
    "fft_r2c fft_c2r renorm trapezoid",
    OWN_ROW: "roll flip rot90 index index_select index_put index_add index_copy index_fill gather take take_along_dim "
    "select slice narrow cat stack concat scatter scatter_add scatter_reduce select_scatter slice_scatter "
    "constant_pad_nd pad repeat tile view reshape permute transpose unfold split split_with_sizes chunk unbind arange "
    "randperm masked_scatter rev",
    OWN_PARTNERS: "mm bmm addmm baddbmm matmul dot mv einsum tensordot cdist cdist_forward pdist convolution "
    "scaled_dot_product_attention scaled_dot_product_flash_attention_for_cpu corrcoef cov",
    NUMBERS: "local_scalar_dense item nonzero unique unique2 unique_dim unique_consecutive masked_select bincount "
    "repeat_interleave",
}
BY_NAME = {name: fix for fix, names in ADVICE.items() for name in names.split()}


def advise(found: Refused) -> str:
    """What to do about what is refused."""
    if found.fix:
        return found.fix
    if is_batch_norm(found.origin):
        return GROUP_NORM
    if found.kind == "unshown":
        return UNSHOWN
    if ITEM in found.reason or COUNTS in found.reason:
        return NUMBERS
    return BY_NAME.get(name_of(found.origin), PER_SAMPLE)


def is_batch_norm(node: Node) -> bool:
    """Whether an op is part of a normalisation by statistics of the batch."""
    return "batch_norm" in name_of(node)


def name_of(node: Node) -> str:
    """Name of the operator that the user called, without its overload: "softmax"."""
    operator = node.meta.get("original_aten") or node.target
    parts = str(operator).split(".")
    return (parts[1] if len(parts) > 1 else parts[0]).removeprefix("_")
