"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """Something the user can put right: the message names the thing, the place and the remedy.

    Commands print it without a stack trace and exit with status 2.
    """
