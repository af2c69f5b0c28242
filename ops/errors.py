"""What ends a run for a reason that lies in its processes, on one machine or on many."""


class ProcessKeepsDying(RuntimeError):
    """A process that dies again and again right after its start, or says that it always would."""


class RunLost(RuntimeError):
    """A process that the run cannot do without is started no more."""
