"""One call of a module at a time."""

from threading import Lock

from dpgraph.errors import ArgumentError

__all__ = ["OneCall"]


class OneCall:
    """Within, no other call of the same module begins.

    Raises:
        ArgumentError: one is under way, in another thread.
    """

    def __init__(self) -> None:
        self._lock = Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise ArgumentError(
                "a private module is called while another call of it is under way",
                why="what a call was given, and whose gradients are delivered, is known for one call at a time",
                fix="call it from one thread; for several devices take a process and a module for each",
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()
