"""Errors for users: a one-line message and an exit code, without a traceback."""


class DeviceopsError(Exception):
    """A failure, or something that was not found. The message has no secrets."""

    exit_code = 1


class SettingsError(DeviceopsError):
    """A setting or an argument is missing or invalid."""

    exit_code = 2
