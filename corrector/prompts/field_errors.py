"""Errors that validators of the batch's models raise: with their own messages, and several at once."""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler
from pydantic_core import InitErrorDetails, PydanticCustomError


def message_error(message: str) -> PydanticCustomError:
    return PydanticCustomError("message", "{message}", {"message": message})


def conflict(message: str, *fields: str) -> PydanticCustomError:
    """An error of values that are valid alone and contradict each other.

    Args:
        message: Why, and what to do.
        fields: The fields to blame, the likeliest first.
    """
    context = {"field": fields[0], "fields": fields, "message": message}
    return PydanticCustomError("conflict", "{field}: {message}", context)


def located(error: PydanticCustomError, *where: str | int) -> InitErrorDetails:
    """`error` at the path `where` below the validated value."""
    return InitErrorDetails(type=error, loc=where, input=None)


def raise_together(errors: Iterable[InitErrorDetails]) -> None:
    """Raise all errors at once; without errors do nothing.

    Raises:
        ValidationError: There are errors.
    """
    if found := list(errors):
        raise ValidationError.from_exception_data("", found)


def validated_with(
    handler: ValidatorFunctionWrapHandler, value: Any, errors: Iterable[InitErrorDetails]
) -> Any:
    """The value that `handler` returns for `value`.

    Raises:
        ValidationError: The handler's errors and `errors`.
    """
    found: list[InitErrorDetails] = []
    try:
        validated = handler(value)
    except ValidationError as failure:
        for each in failure.errors(include_url=False):
            error = PydanticCustomError(each["type"], each["msg"], each.get("ctx"))
            found.append(located(error, *each["loc"]))
    raise_together([*found, *errors])
    return validated
