"""What is done about ways around reading the picture, and about pictures that are alike."""

from typing import Annotated, Literal

import msgspec

Reaction = Literal["off", "count", "filter", "penalty"]


class ShortcutConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done about each way around reading the picture (mmzero_async/roles/shortcuts/).

    "count" records it in the event, "filter" rejects the solver's group besides, "penalty" costs
    the coder and the proposer instead.
    """

    answer_text: Reaction = "count"  # drawn text gives an answer away
    answer_metadata: Reaction = "count"  # <title>, <desc> or aria-label does
    hidden_text: Reaction = "count"  # not painted
    tiny_text: Reaction = "count"
    off_canvas_text: Reaction = "count"
    same_colour_text: Reaction = "count"  # painted, but not to be told from its ground
    blank: Reaction = "count"
    caption_only: Reaction = "count"  # the caption's words and no drawing
    copy: Reaction = "count"  # looks like an earlier picture of another proposal
    tiny_pixels: float = 3.0  # painted pixels a character; fewer are tiny
    shown: float = 0.5  # share of a text's pixels that must show
    blank_ink: float = 0.002  # share of pixels; less is blank
    copy_bits: int = 8  # of 2304 that two pictures' fingerprints may differ in
    copy_memory: int = 4096  # pictures that are compared with
    copy_by: Literal["looks", "structure", "either"] = "looks"  # what makes two pictures alike
    # Of the 64 numbers of two structures, the share that agrees in a copy.
    copy_likeness: Annotated[float, msgspec.Meta(gt=0)] = 0.95
    coder_penalty: float = 0.5  # a drawing and detector, of those set to "penalty"
    proposer_penalty: float = 0.25  # times the share of a proposal's drawings
