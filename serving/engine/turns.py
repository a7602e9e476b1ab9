"""Turns: whose request is next."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """A queue that serves users in turns: whoever sends a thousand requests delays others by one of them at a time.

    Within a user's requests, first come, first served. Not thread-safe.
    """

    def __init__(self) -> None:
        self._users: OrderedDict[str, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._users.values())

    def __iter__(self) -> Iterator[Item]:
        """Everything that waits, user by user."""
        for waiting in self._users.values():
            yield from waiting

    def put(self, user: str, item: Item) -> None:
        """`item` waits behind the others of `user`."""
        self._users.setdefault(user, deque()).append(item)

    def next(self) -> Item | None:
        """What is next, which goes on waiting; None: nothing waits."""
        return next(iter(self), None)

    def take(self) -> Item:
        """What is next, which waits no more; its user's next turn comes after everybody else's."""
        user, waiting = next(iter(self._users.items()))
        item = waiting.popleft()
        if waiting:
            self._users.move_to_end(user)
        else:
            del self._users[user]
        return item

    def drop(self, gone: Callable[[Item], bool]) -> list[Item]:
        """Takes out whatever is `gone`, and returns it."""
        dropped: list[Item] = []
        for user in list(self._users):
            staying: deque[Item] = deque()
            for item in self._users[user]:
                (dropped if gone(item) else staying).append(item)
            if staying:
                self._users[user] = staying
            else:
                del self._users[user]
        return dropped
