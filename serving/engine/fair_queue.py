"""FairQueue: the order in which waiting requests are admitted."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Round robin over users, first come first served within a user; not thread-safe.

    A user with a thousand requests delays another user's request by one request per round only.
    """

    def __init__(self) -> None:
        self._users: OrderedDict[str, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._users.values())

    def __iter__(self) -> Iterator[Item]:
        """All items, user by user."""
        for waiting in self._users.values():
            yield from waiting

    def put(self, user: str, item: Item) -> None:
        """Append `item` to the user's items."""
        self._users.setdefault(user, deque()).append(item)

    def peek(self) -> Item | None:
        """The next item, without removing it; None where the queue is empty."""
        return next(iter(self), None)

    def pop(self) -> Item:
        """Remove and return the next item; its user goes to the end of the round."""
        user, waiting = next(iter(self._users.items()))
        item = waiting.popleft()
        if waiting:
            self._users.move_to_end(user)
        else:
            del self._users[user]
        return item

    def remove(self, condition: Callable[[Item], bool]) -> list[Item]:
        """Remove and return the items for which `condition` holds."""
        removed: list[Item] = []
        for user, waiting in list(self._users.items()):
            kept: deque[Item] = deque()
            for item in waiting:
                (removed if condition(item) else kept).append(item)
            if kept:
                self._users[user] = kept
            else:
                del self._users[user]
        return removed
