"""A dataset out of the log: one row a picture with its questions, votes and rewards, as Parquet.

The picture is a struct {bytes, path}, as `datasets` stores images, so that `load_dataset` shows it
as one. Rows come in the log's order and are written in row groups: memory stays bounded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmzero_async.log.reader import LogReader
from mmzero_async.roles.facts import picture_facts
from mmzero_async.schemas.events import Answered, Proposal, Proposed, Question, Rendered
from mmzero_async.schemas.ids import indices, parent, root

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("content_type", pa.string()),
        ("caption", pa.string()),
        ("easy_question", pa.string()),
        ("easy_answer", pa.string()),
        ("hard_question", pa.string()),
        ("hard_answer", pa.string()),
        ("silver_answer", pa.string()),
        ("easy_answers", pa.list_(pa.string())),
        ("hard_answers", pa.list_(pa.string())),
        ("solvability", pa.float64()),
        ("hard_consistency", pa.float64()),
        ("difficulty", pa.float64()),
        ("proposer_version", pa.int64()),
        ("solver_version", pa.int64()),
        ("offset", pa.int64()),
    ],
    metadata={
        "huggingface": '{"info": {"features": {"image": {"_type": "Image"}}}}',
    },
)
ROWS_A_GROUP = 500


def rows(reader: LogReader) -> Iterator[dict[str, Any]]:
    """One row for every picture whose easy and hard questions were answered."""
    proposed: dict[str, Proposed] = {}
    pictures: dict[str, Rendered] = {}
    answers: dict[str, dict[Question, Answered]] = {}
    for record in reader.scan():
        event = record.event()
        match event:
            case Proposed():
                proposed[event.group] = event
            case Rendered() if event.picture is not None:
                pictures[event.drawing] = event
            case Answered():
                got = answers.setdefault(event.drawing, {})
                got[event.question] = event
                if len(got) == 2:
                    group = proposed[root(event.drawing)]
                    picture = pictures.pop(event.drawing)
                    yield _row(record.offset, group, picture, answers.pop(event.drawing), reader)
            case _:
                pass


def _row(
    offset: int,
    group: Proposed,
    picture: Rendered,
    answers: dict[Question, Answered],
    reader: LogReader,
) -> dict[str, Any]:
    proposal = _proposal(group, picture.drawing)
    easy, hard = answers["easy"], answers["hard"]
    facts = picture_facts(easy, hard, proposal)
    assert picture.picture is not None
    return {
        "id": picture.drawing,
        "image": {"bytes": reader.blob(picture.picture), "path": f"{picture.drawing}.png"},
        "content_type": proposal.content_type,
        "caption": proposal.caption,
        "easy_question": proposal.easy_question,
        "easy_answer": proposal.easy_answer,
        "hard_question": proposal.hard_question,
        "hard_answer": proposal.hard_answer,
        "silver_answer": facts.silver,
        "easy_answers": [outcome.answer for outcome in easy.outcomes],
        "hard_answers": [outcome.answer for outcome in hard.outcomes],
        "solvability": facts.solvability,
        "hard_consistency": facts.hard_consistency,
        "difficulty": facts.difficulty,
        "proposer_version": group.generation.version,
        "solver_version": hard.generation.version,
        "offset": offset,
    }


def _proposal(group: Proposed, drawing: str) -> Proposal:
    proposal = group.outcomes[indices(parent(drawing))[1]].proposal
    assert proposal is not None, "only parsed proposals are drawn"
    return proposal


def write(reader: LogReader, path: Path) -> int:
    """Writes the Parquet file; the number of rows. An unfinished file never bears the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    count = 0
    with pq.ParquetWriter(draft, SCHEMA, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []
        for row in rows(reader):
            batch.append(row)
            count += 1
            if len(batch) == ROWS_A_GROUP:
                writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
                batch.clear()
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
    draft.replace(path)
    return count
