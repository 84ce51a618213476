"""The reference: a plain loop over the samples. It imports torch alone and shares no code with dpgraph."""

from tests.oracle.loop import PerSampleGradients, clip_factor, group_names, per_sample_gradients

__all__ = ["PerSampleGradients", "clip_factor", "group_names", "per_sample_gradients"]
