"""What can go wrong in this room. What a model writes is never an error: it is an outcome."""


class TemplateError(ValueError):
    """A prompt template set that cannot be used: says which file, what is wrong, what to do."""
