"""Every error a user can meet. The message says what was asked, what was found and what to do."""


class UfeError(Exception):
    """Base of all errors that are shown to users as one line, without a traceback."""


class PluginError(UfeError):
    """A plugin or one of its components cannot be loaded."""


class UnknownComponentError(UfeError):
    """No usable component has the name that was asked for."""


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
