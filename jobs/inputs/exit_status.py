"""The exit status of a command that was used wrongly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from corrector.errors import UserError

_P = ParamSpec("_P")


def tells_mistakes(command: Callable[_P, int]) -> Callable[_P, int]:
    """`command`, which for a mistake of the user prints one line and returns 2, and after Ctrl-C returns 130."""

    @wraps(command)
    def run(*arguments: _P.args, **options: _P.kwargs) -> int:
        try:
            return command(*arguments, **options)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        except OSError as error:
            print(f"{error.filename}: {error.strerror}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130

    return run
