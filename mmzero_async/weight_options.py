"""Keys of `[learner]` that say which weights are trained, and how roles share engines for it."""

from typing import Literal

from mmzero_async.scale_options import ScaleOptions

Weights = Literal["lora", "full"]


class WeightOptions(ScaleOptions, frozen=True, kw_only=True):
    """LearnerConfig has them beside its own keys."""

    weights: Weights = "lora"  # an adapter a role on one base; "full": a model and engine a role
    freeze_vision: bool = False  # of "full": the vision tower is not trained


def unservable(options: WeightOptions, dtype: str, engine_url: str) -> str | None:
    """Why these weights cannot be trained or served under the rest of the configuration."""
    if options.weights == "lora":
        if options.freeze_vision:
            return 'learner.freeze_vision says nothing where learner.weights = "lora": leave it out'
        return None
    if dtype != "float32":
        return (
            'learner.weights = "full" trains the weights themselves, and bfloat16 would lose most '
            'updates to rounding: set learner.dtype = "float32"'
        )
    if engine_url:
        return (
            'learner.weights = "full" needs an engine for each role, and engine.url names one: '
            "leave it empty"
        )
    return None
