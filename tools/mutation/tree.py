"""What every run of mutants needs: a copy of the tree to break, and the words for what became of a mutant."""

import shutil
from enum import Enum
from pathlib import Path

__all__ = ["COPIED", "PYTEST_OPTIONS", "ROOT", "Verdict", "copy_tree", "environment"]

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("dpgraph", "tests", "pyproject.toml")
PYTEST_OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")


class Verdict(str, Enum):
    """What became of a mutant."""

    killed = "killed"
    survived = "SURVIVED"
    broken = "BROKEN"


def copy_tree(root: Path, target: Path) -> None:
    """Copy what the tests need."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy2(source, target / name)


def environment(tree: Path) -> dict[str, str]:
    """The variables under which the tests of a copy run."""
    return {
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        # compiled code of one mutant must not serve another one
        "TORCHINDUCTOR_CACHE_DIR": str(tree / "inductor-cache"),
    }
