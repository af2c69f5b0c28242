"""What can go wrong with the renderer itself. A bad SVG is never an error: it is an outcome."""


class RenderingError(RuntimeError):
    """The pool cannot work at all: says what failed and what to do."""
