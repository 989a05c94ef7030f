"""What a user can put right: every such error says what is wrong and what to do."""


class UserError(Exception):
    """The command line prints these as one message and exits with code 2."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run."""


class DataError(UserError):
    """A data set that is missing, corrupt, or does not fit the experiment."""


class RecordError(UserError):
    """A run directory that cannot be written, resumed or read."""


class FormatError(RecordError):
    """A record of a later version, in a format that this one does not know."""


class WriteError(RecordError):
    """A record that could not be written, since the disk is full, say; what was there still is."""


class ResourceError(UserError):
    """A run that this machine cannot hold."""


class ConcavityWarning(UserWarning):
    """An inner maximisation that may have ended in a local maximum."""


class PrecisionWarning(UserWarning):
    """A precision that this processor has no instructions for."""


class PointWarning(UserWarning):
    """A perturbation that gave points which are no adversarial examples."""


class RecordWarning(UserWarning):
    """A record that was missing or damaged, and is made again."""


class OverrideWarning(UserWarning):
    """An override that took other settings with it."""


class ModelError(ConfigError, RuntimeError):
    """A model that fails, or does not give what is asked of it; PyTorch's own are RuntimeErrors."""


class UndifferentiableError(ModelError):
    """A model through which no gradient reaches the input."""
