"""Transfer rules of convolutions: images of the samples with one kernel, or a kernel of each sample's own.

Letters: N images, G groups, c channels of a group that come in, o that go out. An image is [N, G c, *]; the kernel
[G o, c, *], or [G c, o, *] if the convolution is transposed; the result [N, G o, *]. Group g reads channels
[g c, (g + 1) c) of each image and places [g r, (g + 1) r) of the kernel's first axis, of length G r, and makes channels
[g o, (g + 1) o). So each image is treated by itself, and so is each group: with G = B k groups, the groups b k ... of
which channels and kernel depend on sample b alone make channels that do (Karras et al. 2020, arXiv:1912.04958).
"""

from typing import Any

import sympy
import torch
from torch.fx import Node

from dpgraph.provenance.lattice import PerSample, Provenance, Refused, Shared, SummedOverSamples
from dpgraph.provenance.registry import Results, Step, transfer
from dpgraph.provenance.rules.views import quotient

aten = torch.ops.aten
FOREIGN_KERNEL = "convolves with a kernel that depends on the samples"


@transfer(aten.convolution.default)
def convolution(step: Step) -> Provenance:
    """(image, kernel, bias, stride, padding, dilation, transposed, output_padding, groups)."""
    image, kernel, bias = step.args[:3]
    shared = isinstance(step.of(kernel), Shared)
    if shared and isinstance(step.of(bias), Shared):
        return _images_apart(step, [image], step.args[8])
    if shared or not _groups_apart(step, image, kernel, step.args[8]):
        return step.mixed(FOREIGN_KERNEL)
    made = _per_group(step, step.out_shape[1], step.args[8])
    if bias is not None and (made is None or step.of(bias) != made.moved_to(0)):
        return step.mixed(FOREIGN_KERNEL)
    return made or step.mixed(FOREIGN_KERNEL)


@transfer(aten.convolution_backward.default)
def convolution_backward(step: Step) -> Results:
    """(grad, image, kernel, bias sizes, stride, ..., groups, mask) to the gradients of image, kernel, bias.

    With one kernel the last two are sums over N. With a kernel of each sample's own all three are the sample's: a
    group's gradients are made of that group's values.
    """
    grad, image, kernel = step.args[:3]
    if isinstance(step.of(kernel), Shared):
        found = _images_apart(step, [grad, image], step.args[9])
        if not isinstance(found, PerSample):
            return found
        summed = SummedOverSamples(step.node)
        return found, summed, summed
    groups = step.args[9]
    made = _per_group(step, step.shape(grad)[1], groups)
    if not _groups_apart(step, image, kernel, groups) or made is None or not _is(step.of(grad), made):
        return step.mixed(FOREIGN_KERNEL)
    of_image, of_kernel = (_per_group(step, step.shape(x)[axis], groups) for x, axis in ((image, 1), (kernel, 0)))
    assert of_image is not None and of_kernel is not None
    return of_image, of_kernel.moved_to(0), made.moved_to(0)


def _images_apart(step: Step, operands: list[Node], groups: Any) -> PerSample | Refused | Shared:
    found = step.agreed(operands)
    if step.batch in step.size(groups).free_symbols:
        return step.mixed("has as many groups as there are samples, and one kernel for all of them")
    if isinstance(found, PerSample) and found.axis >= 1:
        return step.mixed("computes along the axis of the samples")
    return found


def _groups_apart(step: Step, image: Node, kernel: Node, groups: Any) -> bool:
    """Whether each sample's channels of the image and of the kernel are whole groups, the same of both."""
    channels = _per_group(step, step.shape(image)[1], groups)
    places = _per_group(step, step.shape(kernel)[0], groups)
    if channels is None or places is None:
        return False
    return _is(step.of(image), channels) and _is(step.of(kernel), places.moved_to(0))


def _per_group(step: Step, size: sympy.Expr, groups: Any) -> PerSample | None:
    """An axis 1 of G r places of which k r are each sample's, for G = B k groups; None if the groups are others."""
    num_groups = step.size(groups)
    each, own = quotient(size, num_groups), quotient(num_groups, step.batch)
    if each is None or own is None or step.batch in own.free_symbols or step.batch in each.free_symbols:
        return None
    return PerSample(1, inner=own * each)


def _is(found: Provenance, expected: PerSample) -> bool:
    return isinstance(found, PerSample) and (found.axis, found.outer, found.inner) == (
        expected.axis,
        expected.outer,
        expected.inner,
    )
