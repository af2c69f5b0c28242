"""Who holds which piece of work, until when. In memory alone: the log can say what is due."""

from dataclasses import dataclass, field

from mmzero_async.schemas.work import Work


@dataclass(frozen=True, slots=True)
class Lease:
    work: Work
    worker: str
    granted: float  # seconds of the caller's clock
    deadline: float


@dataclass(slots=True)
class LeaseTable:
    """All times are the caller's: pass `now` from one monotonic clock."""

    seconds: float
    max_attempts: int
    held: dict[str, Lease] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)  # counted failures of open work

    def grant(self, work: Work, worker: str, now: float) -> Lease:
        lease = Lease(work, worker, now, now + self.seconds)
        self.held[work.key] = lease
        return lease

    def settle(self, key: str) -> None:
        """A result is committed: nobody holds the work, its failures are history."""
        self.held.pop(key, None)
        self.failures.pop(key, None)

    def release(self, key: str, *, counts: bool) -> int | None:
        """Ends a lease without a result. The number of failures, if they are now too many."""
        self.held.pop(key, None)
        if counts:
            self.failures[key] = self.failures.get(key, 0) + 1
        failures = self.failures.get(key, 0)
        return failures if failures >= self.max_attempts else None

    def expired(self, now: float) -> list[str]:
        return [key for key, lease in self.held.items() if lease.deadline <= now]

    def held_by(self, key: str, worker: str) -> bool:
        lease = self.held.get(key)
        return lease is not None and lease.worker == worker

    def attempt(self, key: str) -> int:
        """1 for a first attempt, one more for each counted failure."""
        return self.failures.get(key, 0) + 1

    def of(self, worker: str) -> list[str]:
        return [key for key, lease in self.held.items() if lease.worker == worker]
