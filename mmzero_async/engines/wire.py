"""The engine's answers as bytes, turned into generations with their provenance.

Knows the JSON that vLLM sends, no sockets. Guarantees that a Sample has as many log-probabilities
as tokens, all of them finite, and that its version spans cover every token once.
"""

import math
from typing import Any

import msgspec

from mmzero_async.engines.errors import EngineError, EngineUnavailable
from mmzero_async.schemas.events import Sample, Sampling, VersionSpan
from mmzero_async.schemas.packing import pack_logprobs, pack_tokens


class _Token(msgspec.Struct):
    logprob: float


class _ChatLogprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _TextLogprobs(msgspec.Struct):
    token_logprobs: list[float | None] = []


class _Message(msgspec.Struct):
    content: str | None = None


class _WeightSpan(msgspec.Struct):
    version: str
    start: int
    end: int


class _Choice(msgspec.Struct):
    index: int
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    weight_versions: list[_WeightSpan] | None = None


class _ChatChoice(_Choice, kw_only=True):
    message: _Message
    logprobs: _ChatLogprobs | None = None


class _TextChoice(_Choice, kw_only=True):
    text: str
    logprobs: _TextLogprobs | None = None
    prompt_token_ids: list[int] | None = None


class _Chat(msgspec.Struct):
    choices: list[_ChatChoice]
    prompt_token_ids: list[int] | None = None


class _Text(msgspec.Struct):
    choices: list[_TextChoice]


class Answer(msgspec.Struct, frozen=True):
    """What a Generation needs of one answer: the prompt as the engine saw it, and its samples."""

    prompt_token_ids: bytes  # int32 [P]
    samples: list[Sample]


# Only the fields above are ever built: a chat answer spells out every token several times over.
_chat_decoder = msgspec.json.Decoder(_Chat)
_text_decoder = msgspec.json.Decoder(_Text)


def sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """The request fields of a Sampling, every knob named so that no server default can apply.

    `top_k` 0 is vLLM's -1 (off); `max_tokens` 0 leaves the length to the context.
    """
    fields: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "return_token_ids": True,
    }
    if sampling.max_tokens:
        fields["max_tokens"] = sampling.max_tokens
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    return fields


def chat_answer(body: bytes, *, n: int, version: int, numbered: bool = False) -> Answer:
    """A chat completion's answer. EngineError when it is not complete and consistent.

    `numbered`: each token's version must be the engine's own; EngineUnavailable where it has none.
    """
    chat: _Chat = _decode(_chat_decoder, body)
    samples = [
        _sample(
            choice,
            choice.message.content or "",
            [token.logprob for token in (choice.logprobs and choice.logprobs.content) or []],
            version,
            numbered,
        )
        for choice in sorted(chat.choices, key=lambda choice: choice.index)
    ]
    return _answer(chat.prompt_token_ids, samples, n)


def text_answer(body: bytes, *, n: int, version: int) -> Answer:
    """A text completion's answer. EngineError when it is not complete and consistent."""
    text: _Text = _decode(_text_decoder, body)
    samples = [
        _sample(
            choice, choice.text, choice.logprobs.token_logprobs if choice.logprobs else [], version
        )
        for choice in sorted(text.choices, key=lambda choice: choice.index)
    ]
    prompt = text.choices[0].prompt_token_ids if text.choices else None
    return _answer(prompt, samples, n)


def error_message(body: bytes) -> str:
    """What an error answer says, whatever its form."""
    try:
        said: Any = msgspec.json.decode(body)
        return str(said["error"]["message"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return body[:500].decode(errors="replace") or "(no message)"


def _decode(decoder: Any, body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise EngineError(
            f"the engine's answer is not what vLLM sends ({error}): {body[:200]!r}. "
            "Is something else listening at engine.url?"
        ) from error


def _answer(prompt: list[int] | None, samples: list[Sample], n: int) -> Answer:
    if prompt is None:
        raise EngineError(
            "the engine's answer has no prompt_token_ids: it must support return_token_ids"
        )
    if len(samples) != n:
        raise EngineError(f"the engine answered with {len(samples)} samples, {n} were asked for")
    return Answer(pack_tokens(prompt), samples)


def _sample(
    choice: _Choice, text: str, logprobs: list[Any], version: int, numbered: bool = False
) -> Sample:
    if choice.token_ids is None:
        raise EngineError("the engine's answer has no token_ids: it must support return_token_ids")
    length = len(choice.token_ids)
    if len(logprobs) != length:
        raise EngineError(
            f"sample {choice.index}: {length} tokens but {len(logprobs)} log-probabilities"
        )
    if not all(value is not None and math.isfinite(value) for value in logprobs):
        raise EngineError(f"sample {choice.index}: a log-probability is not finite")
    return Sample(
        token_ids=pack_tokens(choice.token_ids),
        logprobs=pack_logprobs(logprobs),
        versions=_spans(choice, length, version, numbered),
        text=text,
        finish_reason=choice.finish_reason or "abort",
    )


def _spans(choice: _Choice, length: int, version: int, numbered: bool) -> list[VersionSpan]:
    """The engine's own spans where it numbers its weights, else one span of the request's version.

    vLLM calls base weights that nobody numbered "default", whatever adapter is loaded; an adapter's
    name then carries the version.
    """
    spans = choice.weight_versions or []
    if not spans or any(not span.version.isdecimal() for span in spans):
        if numbered and length:
            raise EngineUnavailable(
                f"sample {choice.index}: the engine's weights have no number "
                f"({spans[0].version if spans else 'it told none'}): nothing was published to it "
                "since it started"
            )
        return [VersionSpan(0, length, version)] if length else []
    edges = [0, *(span.end for span in spans)]
    if [span.start for span in spans] != edges[:-1] or edges[-1] != length:
        raise EngineError(f"sample {choice.index}: its weight versions do not cover its tokens")
    return [VersionSpan(span.start, span.end, int(span.version)) for span in spans]
