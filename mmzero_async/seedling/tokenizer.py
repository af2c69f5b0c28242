"""The seedling's tokenizer: byte-level BPE of under a thousand tokens, with Qwen3-VL's specials.

Tags, the SVG header and frequent attribute runs are single ordinary tokens; digits stand alone, so
that a number is read and written digit by digit. Chat template and processor have Qwen3-VL's shape.
"""

import json
import random
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from mmzero_async.seedling.lessons import lesson_texts
from mmzero_async.seedling.scenes import HEADER

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAGS = ("content_type", "caption", "easy_question", "easy_answer", "hard_question", "hard_answer")
FRAGMENTS = (
    HEADER,
    "</svg>",
    '<rect x="',
    '<circle cx="',
    '<polygon points="',
    '<polyline points="',
    '" y="',
    '" cy="',
    '" width="14" height="',
    '" width="22" height="22" fill="',
    '" width="',
    '" height="',
    '" r="4" fill="',
    '" r="12" fill="',
    '" fill="none" stroke="',
    '" fill="',
    '<path d="M4 90H92" stroke="black"/>',
    '"/>',
    "```svg\n",
    "\n```",
    "<think>",
    "</think>",
    "\\boxed{",
)
TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type in ('image', 'image_url') or 'image' in part or 'image_url' in part -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def build(folder: Path, *, image_size: int, vocabulary: int = 640, seed: int = 0) -> None:
    """Trains the tokenizer on sample lessons and saves tokenizer, template and processor."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(lesson_texts(random.Random(seed), 4000), trainer)
    tags = [f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")]
    bpe.add_tokens([AddedToken(text, normalized=False) for text in (*tags, *FRAGMENTS)])

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        bos_token=None,
        unk_token=None,
        additional_special_tokens=[s for s in SPECIALS if "vision" in s or "pad" in s],
        model_max_length=1024,
    )
    size = {"shortest_edge": image_size * image_size, "longest_edge": image_size * image_size}
    images = Qwen2VLImageProcessor(
        size=size,
        patch_size=16,
        merge_size=2,
        temporal_patch_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    videos = Qwen3VLVideoProcessor(patch_size=16, merge_size=2, temporal_patch_size=2)
    processor = Qwen3VLProcessor(images, tokenizer, videos, chat_template=TEMPLATE)
    processor.save_pretrained(folder)
    # vLLM reads the template beside the tokenizer.
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id})
    )
