"""Train every architecture of `tests/zoo` for a step in low precision and with dropout, and see what validation says.

    python -m tools.false_alarms --log alarms.jsonl                      in bfloat16, through Inductor
    python -m tools.false_alarms GPT2 ViT --dtype float32                these alone, in float32

A graph that is compiled rightly must pass whatever rounding and random numbers do. What stands in the log already is
not run again: a run that was stopped goes on. Exit status 1 if a model that compiles was not let pass.
"""

import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from torch import nn
from transformers.utils import logging as transformers_logging

from dpgraph import CompileOptions, DPGraphError, MiscompiledError, dp_compile
from tests.models.architecture import Architecture
from tests.zoo.architectures import NIGHTLY, ZOO
from tools.outcomes import Log

DropsOut = nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d
Precision = Literal["bfloat16", "float32"]
DROPOUT = 0.1
NUM_SAMPLES = 4


def let_drop(model: nn.Module) -> int:
    """Turn on whatever drops out in a model, modules and probabilities that a forward reads; how many those were."""
    found = 0
    for module in model.modules():
        if isinstance(module, DropsOut):
            module.p, found = DROPOUT, found + 1
        for name, value in list(vars(module).items()):
            if "drop" in name and "layer" not in name and isinstance(value, float):  # whole layers are branches
                setattr(module, name, DROPOUT)
                found += 1
    return found


def run(architecture: Architecture, dtype: torch.dtype) -> dict[str, Any]:
    """What became of one step: "passed", "refused", "cannot run" or "ALARM", with figures."""
    torch._dynamo.reset()
    torch.set_num_threads(1)
    model = architecture.build(dtype)
    num_dropouts = let_drop(model)
    torch.manual_seed(2)
    batch = architecture.batch(NUM_SAMPLES).to(dtype)
    try:
        with torch.no_grad():
            architecture.losses(model, batch)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        return {"outcome": "cannot run", "detail": f"PyTorch itself: {str(error).splitlines()[0]}"}
    start = time.perf_counter()
    try:
        module = dp_compile(model, "full", options=CompileOptions("inductor"))
        architecture.losses(module, batch).sum().backward()
    except MiscompiledError as error:
        return {"outcome": "ALARM", "detail": str(error)}
    except DPGraphError as error:
        return {"outcome": "refused", "detail": error.what}
    seconds = time.perf_counter() - start
    (validation,) = module.validations
    return {
        "outcome": "passed",
        "dropouts": num_dropouts,
        "compared": len(validation.compared),
        "largest": validation.largest_difference,
        "tolerance": validation.tolerance,
        "rounding": list(validation.rounding),
        "left_out": dict(validation.left_out),
        "share": validation.seconds / seconds,
    }


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Parts of names; all by default.")] = None,
    dtype: Annotated[Precision, typer.Option(help="Of parameters and inputs.")] = "bfloat16",
    log: Annotated[Path | None, typer.Option(help="Where each outcome is written at once, and read from.")] = None,
) -> None:
    """Run what the log does not have, and say what was not let pass."""
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    outcomes = Log(log)
    known = {(row["name"], row["dtype"]): row for row in outcomes.read()}
    for architecture in (*ZOO, *NIGHTLY):
        key = architecture.name, dtype
        if key in known or (names and not any(name in architecture.name for name in names)):
            continue
        known[key] = {"name": architecture.name, "dtype": dtype, **run(architecture, getattr(torch, dtype))}
        print(outcomes.add(known[key]), flush=True)
    alarms = [" ".join(key) for key, row in known.items() if row["outcome"] == "ALARM"]
    print(f"{len(known)} steps, {len(alarms)} alarms: {', '.join(alarms) or 'none'}")
    sys.exit(1 if alarms else 0)


if __name__ == "__main__":
    typer.run(main)
