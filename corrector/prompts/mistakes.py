"""Mistakes in a batch file: collected, sorted by place, and raised together."""

from dataclasses import dataclass, field

from corrector.errors import UserError
from corrector.prompts.located_values import Place, key_name

MAX_MISTAKES = 1000
"""Mistakes after which a batch file is given up."""


@dataclass(frozen=True)
class BatchError:
    """One mistake.

    Attributes:
        file: The file, as the user named it.
        line: Counted from 1; None where no line is to blame (the file does not exist).
        field: The key ("rank", "gate.max_p", "guard_prompts[2]"), or empty for the file as a whole.
        message: What is wrong and what would be right.
    """

    file: str
    line: int | None
    field: str
    message: str

    def __str__(self) -> str:
        """In the format of compilers, which editors and terminals link: `people.yaml:14: rank: expected …`."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.field, self.message) if part)


class BatchErrors(UserError):
    """All mistakes of a batch file; its text has one line per mistake, in the order of the file."""

    def __init__(self, errors: list[BatchError]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors

    def __reduce__(self) -> tuple[type["BatchErrors"], tuple[list[BatchError]]]:
        return type(self), (self.errors,)


class Unreadable(Exception):
    """A file cannot be read any further.

    Attributes:
        line: Where, counted from 1; None for the whole file.
    """

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class MistakeLog:
    """The mistakes that the readers and checks of one batch file have found."""

    errors: list[BatchError] = field(default_factory=list)

    def add(self, place: Place, field: str, message: str) -> None:
        """Note one mistake.

        Raises:
            BatchErrors: `MAX_MISTAKES` are reached.
        """
        self.errors.append(BatchError(place.file, place.line, field, message))
        if len(self.errors) == MAX_MISTAKES:
            end = f"{MAX_MISTAKES} mistakes; reading ends here"
            self.errors.append(BatchError(place.file, place.line, "", end))
            raise self.failure()

    def add_repeated(self, place: Place, key: str, first: int | None) -> None:
        """Note a key that its mapping has already, in line `first`."""
        self.add(place, key_name(key), f"given twice; the first is in line {first}")

    def failure(self) -> BatchErrors:
        """The exception with all mistakes so far, sorted by file and line."""
        return BatchErrors(sorted(self.errors, key=lambda error: (error.file, error.line or 0)))
