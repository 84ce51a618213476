"""Warn where a length that samples may decide gets into what is trained."""

import warnings

from dpgraph.provenance.assumptions import Assumptions

__all__ = ["PublicSizeWarning", "warn_of_means"]


class PublicSizeWarning(UserWarning):
    """Values of a trained gradient are divided by a size of an input that varies from batch to batch.

    Sizes other than the number of samples are taken to be public. Those of a batch that is padded to its longest sample
    are not: one sample decides by how much the others' terms are divided, which no clipping bounds.
    """


def warn_of_means(found: Assumptions) -> None:
    """Warn once of a captured graph, at the first of the lines."""
    if not found.means or not found.public_sizes:
        return
    place = next((p for p in found.means if p.line is not None), found.means[0])
    sizes = ", ".join(map(str, found.public_sizes))
    others = f", and {len(found.means) - 1} other lines" if len(found.means) > 1 else ""
    message = (
        "a mean over a size that varies, or a division by one, is on the way to a trained gradient "
        f"({place.op}{others}). "
        f"dpgraph takes the {sizes} to be public; where batches are padded to their longest sample that is not so, and "
        "one sample changes what the others contribute. Pad every batch to one length, or mask: "
        "(h * mask).sum(1) / mask.sum(1) divides each sample by a count of its own"
    )
    if place.line is None:
        warnings.warn(message, PublicSizeWarning, stacklevel=3)
    else:
        warnings.warn_explicit(message, PublicSizeWarning, place.line.filename, place.line.lineno)
