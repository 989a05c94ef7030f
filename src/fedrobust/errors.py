"""Errors that a user can put right. Each one says what is wrong and what to do."""


class UserError(Exception):
    """The base of these errors. The command line prints one message and exits with code 2."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run."""


class DataError(UserError):
    """A data set that is missing, corrupt, or does not fit the experiment."""


class RecordError(UserError):
    """A run directory that cannot be written, resumed or read."""


class FormatError(RecordError):
    """A record of a later version of fedrobust, in a format that this version does not know."""


class WriteError(RecordError):
    """A record that could not be written, for example on a full disk; the old content remains."""


class ResourceError(UserError):
    """A run that this machine cannot hold."""


class ConcavityWarning(UserWarning):
    """An inner maximisation that may have ended in a local maximum."""


class PrecisionWarning(UserWarning):
    """A numerical precision that this processor has no instructions for."""


class ModelWarning(UserWarning):
    """A model that can be trained, but perhaps not as it is meant."""


class DrawWarning(UserWarning):
    """A draw from a global random generator that makes a result depend on the workers."""


class PointWarning(UserWarning):
    """A perturbation that returned points which are not adversarial examples."""


class RecordWarning(UserWarning):
    """A record that was missing or damaged, and was made again."""


class OverrideWarning(UserWarning):
    """An override that also dropped other settings."""


class ModelError(ConfigError, RuntimeError):
    """A model that fails or returns a wrong result. PyTorch's own errors are RuntimeErrors too."""


class UndifferentiableError(ModelError):
    """A model through which no gradient reaches the input."""
