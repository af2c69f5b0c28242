"""Which weights drew which token, told in vLLM's chat answers.

Loaded inside vLLM's API server by `--middleware`; nothing else may import it. vLLM 0.32 numbers the
weights of every token, but says so only where tokens go in and out as numbers. Here each choice of
a chat answer gets its `weight_versions` too.
"""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat

_answer = OpenAIServingChat.chat_completion_full_generator


async def _answer_with_spans(
    self: Any, request: Any, results: Any, *rest: Any, **named: Any
) -> Any:
    last: Any = None

    async def watched() -> AsyncIterator[Any]:
        nonlocal last
        async for result in results:
            last = result
            yield result

    response = await _answer(self, request, watched(), *rest, **named)
    spans = {output.index: output.weight_versions for output in (last.outputs if last else ())}
    for choice in getattr(response, "choices", ()):
        choice.weight_versions = [asdict(span) for span in spans.get(choice.index) or ()]
    return response


class PassThrough:
    """What vLLM takes for middleware. It does nothing: importing this file is the point."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


OpenAIServingChat.chat_completion_full_generator = _answer_with_spans
