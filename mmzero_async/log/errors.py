"""What can go wrong with a log, each with what happened, where, and what to do."""


class LogError(Exception):
    """Base of the log's errors."""


class LogLocked(LogError):
    """Another process writes this log."""


class ForeignLog(LogError):
    """Not a log of ours, a newer format, or the log of another run."""


class LogTorn(LogError):
    """The file ends before pages that its last commit needs."""


class NetworkFileSystem(LogError):
    """The folder lies where LMDB's locks and its memory map cannot be trusted."""


class ReadersFull(LogError):
    """Every reader slot of the log is taken; the writer goes on."""


class LogFull(LogError):
    """The disk is full: the batch was refused as a whole; the log stays as it was."""


class FencedProducer(LogError):
    """The producer has a newer epoch; this one may not write any more."""


class SequenceGap(LogError):
    """The producer skipped a sequence number: something it sent before has not arrived."""


class TargetTaken(LogError):
    """Something bears the name already under which a copy was to appear."""


class BlobDropped(LogError):
    """Compaction dropped this blob; its tombstone says when, why and which archive holds it."""


class BlobMissing(LogError, KeyError):
    """No blob under this digest."""


class SnapshotOver(LogError):
    """A snapshot was held longer than it was asked for: its pages are no longer kept for it."""
