"""Every error a user can meet. The message says what was asked, what was found and what to do."""

import errno

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})  # numbers of an `OSError`


class UfeError(Exception):
    """Base of all errors that are shown to users as one line, without a traceback."""


class PluginError(UfeError):
    """A plugin or one of its components cannot be loaded."""


class UnknownComponentError(UfeError):
    """No usable component has the name that was asked for."""


class NotLoadedError(UnknownComponentError):
    """A component is not there because the plugin that has it did not load."""


class ConfigError(UfeError):
    """An option is unknown, or its value is not allowed."""


class ContractError(UfeError):
    """A component broke its interface: wrong shape, dtype, range, or a missing part."""


class DataError(UfeError):
    """A capture or another input file is missing, damaged, or not what it claims to be."""


class ArtifactError(UfeError):
    """Weights, a calibration or another thing in the store is damaged, or cannot be written."""


class RegistryError(UfeError):
    """`registry.toml` is missing or invalid."""


class MethodError(UfeError):
    """A method that was run failed: its plugin raised something, its training diverged."""


def cause_of(error: BaseException) -> str:
    """One line for an error: of ufe's own its text, of any other what it is and what it says."""
    text = str(error) if isinstance(error, UfeError) else f"{type(error).__name__}: {error}".rstrip(": ")
    return " ".join(text.split())
