"""The Python in README.md and in docs/ runs, and their links lead somewhere."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.models.plain import MLP
from tests.programs.exact import check_exact

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
TITLES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def blocks(path: Path) -> list[tuple[int, str]]:
    """Each block of Python with the line that it starts after."""
    text = path.read_text("utf-8")
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in PYTHON.finditer(text)]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=title, marks=[pytest.mark.inductor] if path.name == "README.md" else [])
        for path, title in zip(DOCUMENTS, TITLES, strict=True)
        if blocks(path)
    ],
)
def test_python_in_documents_runs(path, monkeypatch):
    document = ModuleType("document")
    monkeypatch.setitem(sys.modules, "document", document)
    for line, code in blocks(path):
        exec(compile("\n" * line + code, str(path), "exec"), vars(document))


@pytest.mark.parametrize("path", DOCUMENTS, ids=TITLES)
def test_links_in_documents_lead_somewhere(path):
    missing = [link for link in LINK.findall(path.read_text("utf-8")) if not (path.parent / link).exists()]
    assert not missing


def test_the_passes_are_listed_as_they_run():
    listed = re.findall(r"^\d+\. `(\w+)`:", (ROOT / "docs" / "concepts.md").read_text("utf-8"), re.MULTILINE)
    assert ["captured", *listed] == list(check_exact(MLP.build(), torch.randn(3, 5, dtype=torch.float64)).graphs)
