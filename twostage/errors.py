"""Errors that a caller can act on. Every message names the thing, the value given and what is accepted."""


class TwostageError(Exception):
    """Base of every error that is the input's fault and not this package's."""


class ConfigError(TwostageError, ValueError):
    """A configuration value, or a combination of them, is not accepted."""


class DataError(TwostageError, ValueError):
    """An image, a mask, a folder or a manifest is not usable."""


class WeightsError(TwostageError, RuntimeError):
    """The LPIPS weights were not found, or are not the published ones."""


class CheckpointError(TwostageError, RuntimeError):
    """A checkpoint is missing, damaged, of another version or of another configuration."""


class OutputError(TwostageError, RuntimeError):
    """An output folder cannot be written, or already holds a run."""


class NonFiniteLossError(TwostageError, ArithmeticError):
    """The training loss became NaN or infinite."""
