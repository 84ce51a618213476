"""What a terminal would show of something that rich can render, as plain text; and numbers of bytes."""

import io

from rich.console import Console, RenderableType

__all__ = ["as_text", "readable"]


def as_text(shown: RenderableType, *, width: int = 100) -> str:
    """Lines of at most `width` characters, without colours or trailing blanks."""
    written = io.StringIO()
    Console(file=written, width=width).print(shown)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def readable(num_bytes: int) -> str:
    """Bytes with a binary prefix."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
