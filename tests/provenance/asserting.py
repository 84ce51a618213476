"""A program with an assertion, in a module of its own, since pytest rewrites those of a test into branches."""

__all__ = ["asserting"]


def asserting(m, x):
    assert (x < 100).all()
    return m.layer(x)
