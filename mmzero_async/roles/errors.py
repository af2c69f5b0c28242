"""What can go wrong in this room; everything a model writes is an outcome instead, never an error."""


class TemplateError(ValueError):
    """A prompt template set that cannot be used: says which file, what is wrong, what to do."""
