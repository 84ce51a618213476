"""The peak of what is really allocated within a call."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["measure_peak"]


def measure_peak(step: Callable[[], object], device: torch.device) -> int:
    """Bytes that tensors made within `step` hold at once, at most.

    On CPU the sum of the profiler's events of allocation; on CUDA the allocator's own count. Neither is the resident
    set of the process.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _ = step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        _ = step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
