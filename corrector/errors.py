"""UserError: the base class of errors that a user or operator can correct."""


class UserError(Exception):
    """An error that the user can correct: the message names the thing, the place and the remedy.

    Commands print it without a stack trace and exit with status 2.
    """
