"""Small models with random weights of each family but Qwen3-VL (tiny_model.py, test_presets.py).

Their tokenizers know bytes and the family's own special tokens, their chat templates have the
family's shape, their image processors the figures of the real models: MiMo-VL-7B (patches of 14,
CLIP's colours, windowed attention), SmolVLM (tiles of 384 pixels, 81 tokens each, four a side) and
SmolVLM2-500M (512 pixels, 64 tokens).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.utils import is_num2words_available

SYSTEM = "You are MiMo, an AI assistant developed by Xiaomi."
# MiMo's: a system message of its own where none is given, and the pads between two marks. What of
# this is published and what is assumed stands in docs/FAMILIES.md.
MIMO_TEMPLATE = (
    "{%- if messages[0].role != 'system' -%}{{ '<|im_start|>system\\n"
    + SYSTEM
    + "<|im_end|>\\n' }}"
    "{%- endif -%}"
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string -%}{{ message.content }}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type in ('image', 'image_url') -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}{{ '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
# SmolVLM's: one start, capital roles, no blank before a picture, an end of its own.
SMOL_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
QWEN_SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
SMOL_SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
]


@dataclass(frozen=True)
class Small:
    """A model's folder, and what its prompt must be for a picture of a size."""

    name: str
    folder: Path
    picture_tokens: dict[tuple[int, int], int]  # width and height: image tokens, counted by hand
    system: str  # how a prompt begins
    model: type


def byte_level(specials: list[str]) -> Tokenizer:
    """Bytes, one merge (two newlines, which stand in SmolVLM's expansion), the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {byte: i for i, byte in enumerate([*alphabet, "ĊĊ"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return made


def mimo(folder: Path) -> Small:
    words = Qwen2TokenizerFast(
        tokenizer_object=byte_level(QWEN_SPECIALS),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        bos_token=None,
        unk_token=None,
    )
    ids = {token: words.convert_tokens_to_ids(token) for token in QWEN_SPECIALS}
    text = dict(
        vocab_size=len(words),
        hidden_size=128,  # heads of 32: vLLM's attention on a CPU takes none of 16
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 640_000.0,
            "mrope_section": [4, 6, 6],
        },
        pad_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    vision = dict(
        depth=3,
        hidden_size=64,
        intermediate_size=96,
        num_heads=2,
        patch_size=14,
        spatial_merge_size=2,
        temporal_patch_size=2,
        window_size=112,
        fullatt_block_indexes=[1],
        out_hidden_size=128,
    )
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    colours = dict(
        image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711],
        patch_size=14,
        merge_size=2,
        temporal_patch_size=2,
    )
    images = Qwen2VLImageProcessor(
        size={"shortest_edge": 56 * 56, "longest_edge": 4096 * 28 * 28}, **colours
    )
    videos = Qwen2VLVideoProcessor(**colours)
    Qwen2_5_VLProcessor(images, words, videos, chat_template=MIMO_TEMPLATE).save_pretrained(folder)
    grown(Qwen2_5_VLForConditionalGeneration, config, folder, MIMO_TEMPLATE)
    return Small(
        "mimo-vl-7b",
        folder,
        {(756, 756): 27 * 27, (120, 64): 4 * 2},
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>",
        Qwen2_5_VLForConditionalGeneration,
    )


def smolvlm(folder: Path) -> Small:
    """SmolVLM-Instruct: Idefics3."""
    config, words = _smol(Idefics3Config, image_size=384, patch_size=14, scale_factor=3)
    images = Idefics3ImageProcessor(
        size={"longest_edge": 4 * 384}, max_image_size={"longest_edge": 384}, **_COLOURS
    )
    processor = Idefics3Processor(images, words, image_seq_len=81, chat_template=SMOL_TEMPLATE)
    processor.save_pretrained(folder)
    grown(Idefics3ForConditionalGeneration, config, folder, SMOL_TEMPLATE)
    # Longest edge 1536, so 4 x 4 tiles and the whole; 2 : 1 is 4 x 2.
    sizes = {(768, 768): 17 * 81, (120, 60): 9 * 81}
    begin = "<|im_start|>User:<fake_token_around_image>"
    return Small("smolvlm", folder, sizes, begin, Idefics3ForConditionalGeneration)


def smolvlm2(folder: Path) -> Small:
    """SmolVLM2-500M-Video-Instruct. Its whole processor only where num2words is installed."""
    config, words = _smol(SmolVLMConfig, image_size=512, patch_size=16, scale_factor=4)
    images = SmolVLMImageProcessor(
        size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}, **_COLOURS
    )
    if is_num2words_available():
        videos = SmolVLMVideoProcessor(
            size={"longest_edge": 512}, max_image_size={"longest_edge": 512}, **_COLOURS
        )
        SmolVLMProcessor(
            images, words, videos, image_seq_len=64, chat_template=SMOL_TEMPLATE
        ).save_pretrained(folder)
    else:
        images.save_pretrained(folder)
        words.save_pretrained(folder)
    grown(SmolVLMForConditionalGeneration, config, folder, SMOL_TEMPLATE)
    sizes = {(768, 768): 17 * 64, (120, 60): 9 * 64}
    begin = "<|im_start|>User:<fake_token_around_image>"
    return Small("smolvlm2", folder, sizes, begin, SmolVLMForConditionalGeneration)


_COLOURS: dict[str, Any] = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)


def _smol(kind: type, *, image_size: int, patch_size: int, scale_factor: int) -> tuple[Any, Any]:
    words = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(SMOL_SPECIALS),
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    ids = {token: words.convert_tokens_to_ids(token) for token in SMOL_SPECIALS}
    config = kind(
        text_config=dict(
            model_type="llama",
            vocab_size=len(words),
            hidden_size=96,
            intermediate_size=160,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
            pad_token_id=ids["<|im_end|>"],
            bos_token_id=ids["<|im_start|>"],
            eos_token_id=ids["<end_of_utterance>"],
            tie_word_embeddings=False,
        ),
        vision_config=dict(
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=3,
            image_size=image_size,
            patch_size=patch_size,
        ),
        image_token_id=ids["<image>"],
        pad_token_id=ids["<|im_end|>"],
        scale_factor=scale_factor,
        tie_word_embeddings=False,
    )
    return config, words


def grown(kind: Any, config: Any, folder: Path, template: str) -> None:
    """Saves a model with random weights large enough to have opinions."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(20260310)
        model = kind(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "position_embedding" not in name:
                parameter.mul_(3.0)
    model.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template)


BUILDERS = {"mimo-vl-7b": mimo, "smolvlm": smolvlm, "smolvlm2": smolvlm2}
