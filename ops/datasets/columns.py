"""The columns of every kind of dataset, and which of them are pictures.

A picture is a struct {bytes, path}, as `datasets` stores images; the schema's metadata says so, and
`load_dataset` gives them decoded. Messages are TRL's conversational form.
"""

import json

import pyarrow as pa

from mmzero_async.ops.datasets.options import Options

TEXT, REAL, WHOLE = pa.string(), pa.float64(), pa.int64()
IMAGE = pa.struct([("bytes", pa.binary()), ("path", TEXT)])
IMAGES = pa.list_(IMAGE)
MESSAGES = pa.list_(pa.struct([("role", TEXT), ("content", TEXT)]))
TEXTS, REALS = pa.list_(TEXT), pa.list_(REAL)
TERMS = pa.list_(pa.struct([("term", TEXT), ("value", REAL)]))

_PLACE = [("id", TEXT), ("run", TEXT), ("lineage", TEXT), ("offset", WHOLE)]
_FATE = [("fate", TEXT), ("step", WHOLE)]
_PROPOSAL = [
    ("content_type", TEXT),
    ("caption", TEXT),
    ("easy_question", TEXT),
    ("easy_answer", TEXT),
    ("hard_question", TEXT),
    ("hard_answer", TEXT),
]
_SOLVER = [
    *_PLACE,
    ("image", IMAGE),
    ("prompt", MESSAGES),
    ("solution", TEXT),
    *_PROPOSAL,
    ("silver_answer", TEXT),
    ("easy_answers", TEXTS),
    ("hard_answers", TEXTS),
    ("solvability", REAL),
    ("hard_consistency", REAL),
    ("difficulty", REAL),
    ("proposer_version", WHOLE),
    ("solver_version", WHOLE),
    ("rewards", REALS),
    *_FATE,
]
_DRAWING = pa.struct(
    [
        ("id", TEXT),
        ("code", TEXT),  # SVG, or a plotting program
        ("failure", TEXT),  # "" for one that became a picture
        ("picture", WHOLE),  # its place in `pictures`; None where there is none
        ("solvability", REAL),
        ("difficulty", REAL),
        ("reward", REAL),
    ]
)
_CODER = [
    *_PLACE,
    ("prompt", MESSAGES),
    *_PROPOSAL,
    ("drawings", pa.list_(_DRAWING)),
    ("pictures", IMAGES),
    ("render_rate", REAL),
    ("proposer_version", WHOLE),
    ("coder_version", WHOLE),
    *_FATE,
]
_PROPOSED = pa.struct(
    [
        ("id", TEXT),
        ("text", TEXT),
        ("failure", TEXT),
        *_PROPOSAL,
        ("drawings", WHOLE),
        ("pictures", WHOLE),  # that were answered
        ("solvability", REAL),  # mean over these
        ("difficulty", REAL),
        ("reward", REAL),
    ]
)
_PROPOSER = [
    *_PLACE,
    ("prompt", MESSAGES),
    ("topic", TEXT),
    ("proposals", pa.list_(_PROPOSED)),
    ("proposer_version", WHOLE),
    *_FATE,
]
_ROLE = [("role", TEXT), ("version", WHOLE)]
_PREFERENCE = [
    *_PLACE,
    *_ROLE,
    ("images", IMAGES),
    ("prompt", MESSAGES),
    ("chosen", MESSAGES),
    ("rejected", MESSAGES),
    ("chosen_reward", REAL),
    ("rejected_reward", REAL),
    ("step", WHOLE),
]
_SFT = [
    *_PLACE,
    *_ROLE,
    ("images", IMAGES),
    ("prompt", MESSAGES),
    ("completion", MESSAGES),
    ("reward", REAL),
    ("step", WHOLE),
]
_SPAN = pa.struct([("start", WHOLE), ("stop", WHOLE), ("version", WHOLE)])
_SAMPLE = pa.struct(
    [
        ("text", TEXT),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("versions", pa.list_(_SPAN)),
        ("finish_reason", TEXT),
        ("outcome", TEXT),
        ("answer", TEXT),
        ("reward", REAL),
        ("advantage", REAL),
        ("terms", TERMS),
    ]
)
_RENDER = pa.struct(
    [
        ("drawing", TEXT),
        ("renderer", TEXT),
        ("failure", TEXT),
        ("detail", TEXT),
        ("ink", REAL),
        ("findings", TEXTS),
    ]
)
_SAMPLING = pa.struct(
    [
        ("temperature", REAL),
        ("top_p", REAL),
        ("top_k", WHOLE),
        ("max_tokens", WHOLE),
        ("seed", WHOLE),
    ]
)
_TRAJECTORIES = [
    *_PLACE,
    ("kind", TEXT),
    *_ROLE,
    ("question", TEXT),
    ("policy", TEXT),
    ("engine", TEXT),
    ("template", TEXT),
    ("sampling", _SAMPLING),
    ("prompt_token_ids", pa.list_(pa.int32())),
    ("images", IMAGES),
    ("samples", pa.list_(_SAMPLE)),
    ("renders", pa.list_(_RENDER)),
    ("facts", TERMS),
    *_FATE,
    ("detail", TEXT),
]
_OF = {
    "solver": _SOLVER,
    "coder": _CODER,
    "proposer": _PROPOSER,
    "preference": _PREFERENCE,
    "sft": _SFT,
    "trajectories": _TRAJECTORIES,
}


def schema_of(options: Options) -> pa.Schema:
    """Without `images` where no role that is asked for sees any: what is left trains a model that
    takes words alone."""
    fields = [(name, sort) for name, sort in _OF[options.kind] if _wanted(name, options)]
    pictures = {
        name: {"_type": "Image"}
        if sort == IMAGE
        else {"feature": {"_type": "Image"}, "_type": "List"}
        for name, sort in fields
        if sort in (IMAGE, IMAGES)
    }
    told = {"info": {"features": pictures}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(told)} if pictures else None)


def yaml_features(schema: pa.Schema, pictures: int) -> list[str]:
    """Lines of a card's `dataset_info`: what a tar's rows look like, which nobody could tell from
    the first of them. `pictures`: of a row at most, where rows have lists of them."""
    columns = picture_columns(schema)
    told = [field for field in schema if field.name not in columns]
    lines = ["dataset_info:", "  features:"]
    lines += [f"  - name: {name}\n    dtype: string" for name in ("__key__", "__url__")]
    lines += ["  - name: json", "    struct:", *(line for f in told for line in _yaml(f, 4))]
    if any(schema.field(name).type == IMAGE for name in columns):
        lines.append("  - name: png\n    dtype: image")
    else:
        lines += [f"  - name: {i}.png\n    dtype: image" for i in range(pictures)]
    return lines


def _yaml(field: pa.Field, indent: int) -> list[str]:
    """A field as `datasets` writes it down."""
    blank, sort = " " * indent, field.type
    head = f"{blank}- name: {field.name}"
    if pa.types.is_struct(sort):
        return [head, f"{blank}  struct:", *(ln for f in sort for ln in _yaml(f, indent + 2))]
    if not pa.types.is_list(sort):
        return [head, f"{blank}  dtype: {_dtype(sort)}"]
    inner = sort.value_type
    if pa.types.is_struct(inner):
        return [head, f"{blank}  list:", *(ln for f in inner for ln in _yaml(f, indent + 2))]
    return [head, f"{blank}  list: {_dtype(inner)}"]


def _dtype(sort: pa.DataType) -> str:
    return {"double": "float64", "float": "float32"}.get(str(sort), str(sort))


def picture_columns(schema: pa.Schema) -> tuple[str, ...]:
    return tuple(field.name for field in schema if field.type in (IMAGE, IMAGES))


def _wanted(name: str, options: Options) -> bool:
    return name != "images" or options.kind == "trajectories" or "solver" in options.roles
