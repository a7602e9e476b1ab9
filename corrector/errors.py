"""UserError: the base class of every error that a user or operator can put right."""


class UserError(Exception):
    """Something the user can put right: the message names the thing, the place and the remedy.

    Commands print it without a stack trace and exit with status 2.
    """
