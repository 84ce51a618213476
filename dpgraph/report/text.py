"""What a terminal would show of something that rich can render, as plain text; names and numbers of bytes."""

import io
from collections.abc import Sequence

from rich.console import Console, RenderableType

__all__ = ["as_text", "enumerated", "readable"]


def as_text(shown: RenderableType, *, width: int = 100) -> str:
    """Lines of at most `width` characters, without colours or trailing blanks."""
    written = io.StringIO()
    Console(file=written, width=width).print(shown)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def enumerated(names: Sequence[str], *, most: int = 4) -> str:
    """How many parameters, and the names of the first ones."""
    shown = [*names[:most], "..."] if len(names) > most else names
    return f"{len(names)} parameters ({', '.join(shown)})"


def readable(num_bytes: int) -> str:
    """Bytes with a binary prefix."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
