"""Failures that a person can act on: each is one clear line and an exit code, never a stack trace."""


class DeviceopsError(Exception):
    """Something failed or was not found; the message says what and where, without secrets."""

    exit_code = 1


class SettingsError(DeviceopsError):
    """A setting or an argument is missing or wrong."""

    exit_code = 2
