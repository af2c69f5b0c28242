"""What workers asked an engine, read back from a run's log: to be asked again, word for word."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmzero_async.config import Config
from mmzero_async.engines.client import VllmClient
from mmzero_async.log.reader import LogReader
from mmzero_async.projections.pipeline import Pipeline
from mmzero_async.roles import prompts
from mmzero_async.roles.prompts import Templates
from mmzero_async.schemas.events import Answered, AnyEvent, Coded, Generation, Probed, Proposed
from mmzero_async.schemas.packing import unpack_tokens
from mmzero_async.schemas.work import Work, completes
from mmzero_async.workers.solver import messages


class OtherPrompt(Exception):
    """The engine saw another prompt than the worker's: what is compared is not the same."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a worker, and when its answer was in the log, in unix seconds."""

    messages: list[dict[str, Any]]
    told: Generation
    at: float

    @property
    def tokens(self) -> int:
        """Drawn, all samples together."""
        return drawn(self.told)

    async def again(self, engine: VllmClient) -> Generation:
        """The same request. OtherPrompt where the engine did not see the very same prompt."""
        told = self.told
        answer = await engine.generate(
            self.messages,
            policy=told.policy,
            version=told.version,
            role=told.role,
            n=len(told.samples),
            sampling=told.sampling,
            template=told.template,
            images=told.images,
        )
        if answer.prompt_token_ids != told.prompt_token_ids:
            raise OtherPrompt(f"a {told.role}'s prompt was rebuilt otherwise than it was asked")
        return answer


def drawn(generation: Generation) -> int:
    return sum(len(unpack_tokens(sample.token_ids)) for sample in generation.samples)


def asked(reader: LogReader, config: Config) -> Iterator[Asked]:
    """All requests in the log, in the order in which they were answered."""
    templates = prompts.load_templates(config.templates, config.coder.drawing)
    pipeline = Pipeline()
    for record in reader.scan():
        event, at = record.event(), record.envelope.time_ns / 1e9
        key = completes(event)
        work = pipeline.lineage.open.get(key) if key is not None else None
        said = _messages(reader, templates, event, work)
        if said is not None and isinstance(event, Proposed | Coded | Answered | Probed):
            yield Asked(said, event.generation, at)
        pipeline.apply(record.offset, event)


def _messages(
    reader: LogReader, templates: Templates, event: AnyEvent, work: Work | None
) -> list[dict[str, Any]] | None:
    """As the worker made them; None for what asked no engine."""
    if isinstance(event, Proposed):
        return prompts.proposer_messages(templates, event.topic)
    if work is None or work.proposal is None:
        return None
    proposal = work.proposal
    match event:
        case Coded():
            return prompts.coder_messages(templates, proposal)
        case Answered() | Probed():
            easy = work.question == "easy"
            question = proposal.easy_question if easy else proposal.hard_question
            picture = reader.blob(work.picture) if work.picture else None
            return messages(templates, question, picture)
        case _:
            return None
