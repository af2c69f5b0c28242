"""What can go wrong in the learner's room. Each says what, where and what to do."""


class LearnerError(Exception):
    """Base of this room's errors."""


class WindowError(LearnerError, ValueError):
    """A window that cannot become tensors: its events contradict each other or the model."""


class StepError(LearnerError, RuntimeError):
    """A step that was not taken; the policy is as it was before."""


class PicturesUnseen(LearnerError, RuntimeError):
    """The policy says the same whatever its pictures show: training on would teach nothing true."""


class RanksError(LearnerError, RuntimeError):
    """The ranks of a learner lost each other: all end, and begin at the last committed step."""


class CheckpointError(LearnerError, RuntimeError):
    """A checkpoint that is missing, damaged or of another shape than the model."""
