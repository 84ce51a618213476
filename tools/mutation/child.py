"""Run pytest in a forked child: what is slow to import is imported once, and each child imports dpgraph anew."""

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tools.mutation.tree import PYTEST_OPTIONS, ROOT, environment

__all__ = ["Ended", "preload", "run_forked", "run_pytest"]

PROFILE = "mutants"
# Exit status of a child that tested another tree than its own.
ASTRAY = 99
PREPARING_FAILED = 98


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit status, -signal if a signal ended it, None if it was stopped for taking too long."""

    status: int | None
    seconds: float


def preload(modules: Iterable[str]) -> None:
    """Import what the children need, but nothing of the tree; and make examples fail without being made small first."""
    phases = (Phase.explicit, Phase.generate)
    checks = (HealthCheck.too_slow, HealthCheck.data_too_large)
    settings.register_profile(
        PROFILE, max_examples=25, derandomize=True, deadline=None, suppress_health_check=checks, phases=phases
    )
    # no pool of compiling processes: it has threads, which a fork does not take along
    os.environ |= {"HYPOTHESIS_PROFILE": PROFILE, "TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            with contextlib.suppress(ImportError, AttributeError):  # a module that another one made by hand
                importlib.import_module(name)


def run_forked(work: Callable[[], int], log: Path, timeout: float) -> Ended:
    """Fork a child that does the work and exits with what it returns; its output goes to a file."""
    start = time.perf_counter()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _become(work, log)
    while time.perf_counter() - start < timeout:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return Ended(os.waitstatus_to_exitcode(status), time.perf_counter() - start)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return Ended(None, time.perf_counter() - start)


def _become(work: Callable[[], int], log: Path) -> None:
    """What the child does; it never returns."""
    status = PREPARING_FAILED
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001  the child has nobody to raise to
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def run_pytest(tree: Path, arguments: Sequence[str], plugins: Sequence[object]) -> int:
    """Exit status of pytest on a copy of the tree, in a child."""
    os.chdir(tree)
    os.environ |= environment(tree)
    sys.path[:] = [str(tree), *(p for p in sys.path if p and Path(p).resolve() not in (ROOT, tree))]
    for name in [n for n in sys.modules if n.partition(".")[0] == "tests"]:
        del sys.modules[name]
    assert "dpgraph" not in sys.modules, "the parent imported what its children are to import"
    # what the parent imported for all is not rewritten, which does no harm to modules that hold no tests
    options = [*PYTEST_OPTIONS, "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    status = int(pytest.main([*options, *arguments], plugins=list(plugins)))
    found = getattr(sys.modules.get("dpgraph"), "__file__", None)
    return ASTRAY if found is not None and not Path(found).is_relative_to(tree) else status
