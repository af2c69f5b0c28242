"""Do two answers mean the same, and which answer do most votes agree with? Labels and votes alike.

`wording` takes off what a model wraps around an answer, `number_words` and `quantities` read
numbers with units, `maths` asks math-verify within a budget, `compare` decides, `votes` counts.
"""

from importlib import metadata

from mmzero_async.roles.grading.compare import same_answer
from mmzero_async.roles.grading.votes import count_votes

# Stands in RunStarted. It changes whenever an old log may be graded another way.
GRADER = f"mmzero-grader-3+math-verify-{metadata.version('math-verify')}"

__all__ = ["GRADER", "count_votes", "same_answer"]
