"""What a terminal would show of something that rich can render, as plain text."""

import io

from rich.console import Console, RenderableType

__all__ = ["as_text"]


def as_text(shown: RenderableType, *, width: int = 100) -> str:
    """Lines of at most `width` characters, without colours or trailing blanks."""
    written = io.StringIO()
    Console(file=written, width=width).print(shown)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())
