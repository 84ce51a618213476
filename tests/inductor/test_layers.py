"""Every layer and every sound twin through Inductor."""

from collections.abc import Iterator

import pytest
import torch

from tests.models.layers import LAYERS
from tests.programs.together import SmallCase, check_together

pytestmark = [pytest.mark.inductor, pytest.mark.slow]
TOGETHER = 12


def layer(name: str) -> SmallCase:
    torch.manual_seed(0)
    model, inputs = LAYERS[name]()
    return SmallCase(name, model.double(), (inputs,))


def graphs() -> Iterator[list[str]]:
    """Names of layers that are compiled together: they have the same number of samples."""
    of_size: dict[tuple[int, ...], list[str]] = {}
    for name in LAYERS:
        of_size.setdefault(layer(name).num_samples, []).append(name)
    for names in of_size.values():
        yield from (names[i : i + TOGETHER] for i in range(0, len(names), TOGETHER))


@pytest.mark.parametrize("names", [*graphs()], ids=lambda names: f"{names[0]} and {len(names) - 1} others")
def test_layers_are_exact(names):
    check_together([layer(name) for name in names])
