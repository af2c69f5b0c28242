"""Which settings a finished log can be replayed under: what is decided after its events.

What events were made under (prompts, sampling, engine) is in them and cannot be otherwise.
"""

from collections.abc import Sequence

from mmzero_async.config import Config, ConfigError, differences, overridden

_OF_THE_EVENTS = ("run", "log", "engine", "renderer", "workers", "eval", "templates")
_OF_THE_TURNS = ("mode", "order", "steps", "iterations", "until", "start")
_OF_THE_SAMPLES = ("samples", "easy_samples", "hard_samples", "sampling", "drawing")


def other_settings(config: Config, overrides: Sequence[str]) -> Config:
    """The run's configuration with overrides on top.

    ConfigError as from the loader, and for a key whose value is already in the log's events.
    """
    other = overridden(config, overrides, "of the run, with the overrides")
    for key in differences(config, other):
        section, *rest = key.split(".")
        turned = section == "schedule" and rest[0] in _OF_THE_TURNS
        if section in _OF_THE_EVENTS or turned or (rest and rest[0] in _OF_THE_SAMPLES):
            raise ConfigError(
                f"{key} cannot be otherwise in a replay: the log's events were made under it. "
                "Rewards, filters, the learner and admission.max_staleness can"
            )
    return other
