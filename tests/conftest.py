"""What every test stands on: one thread, fixed seeds, no compilation left over, hypothesis profiles."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from dpgraph.deliveries import RECORDS
from dpgraph.gradients import native

# Inductor refuses more where this is set: what passes here passes there.
os.environ.setdefault("CI", "true")

# Examples compile a model each, which is slow and of varying speed: no deadline.
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "ci", max_examples=25, derandomize=True, deadline=None, print_blob=True, suppress_health_check=SLOW
)
settings.register_profile("dev", max_examples=10, deadline=None, suppress_health_check=SLOW)
settings.register_profile("nightly", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Workers of pytest-xdist share the cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    """No test sees what another one compiled."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(autouse=True)
def _no_gradients_left() -> None:
    """What a test before this one left in a module that still lives waits for no step."""
    for record in list(RECORDS.values()):
        if record.parameter is not None:
            record.parameter.grad = None


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a C++ compiler: ghost norms are products in the graph."""
    monkeypatch.setattr(native, "_library", lambda: None)


@pytest.fixture(params=["kernel", "products in the graph"])
def both_ghost_norms(request: pytest.FixtureRequest) -> None:
    """Run a test with the kernel for CPUs and without it."""
    if request.param != "kernel":
        request.getfixturevalue("uncompiled")
