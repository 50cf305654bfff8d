"""Errors that are sentences for the person who made the request."""


class UserError(Exception):
    """What the user asked for cannot be done. The message says what was found, what was expected and what to do.

    Commands print it and exit with code 2; it never comes with a traceback.
    """


class TrainingError(Exception):
    """The trainer's process failed; the message holds what it said last."""


class AccountingError(Exception):
    """A stage lost or invented documents: `read != kept + dropped + failed`. A bug, never the user's fault."""
