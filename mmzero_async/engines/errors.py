"""What can go wrong between us and an inference engine."""


class EngineError(Exception):
    """Base of the engine's errors; itself raised for an answer that contradicts itself."""


class EngineUnavailable(EngineError):
    """No engine, none that answers, or one that broke inside. Trying again later may help."""


class EngineSlow(EngineUnavailable):
    """The engine did not answer in time: it has too much to do, or hangs."""


class EngineRejected(EngineError):
    """The engine understood the request and refused it (4xx). Trying again will not help."""


class PolicyNotLoaded(EngineRejected):
    """The engine serves no policy of that name: not published yet, or unloaded since."""


class ModelUnusable(EngineError):
    """A model folder from which no engine can be started."""


class PublishFailed(EngineError):
    """A new version was not published; the engine serves what it served before."""


class EngineKeyUnusable(EngineError):
    """A key file of the engine that is missing, broken or open to others."""
