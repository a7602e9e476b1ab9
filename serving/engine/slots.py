"""Slots: which adapter lies in which slot of the device's bank."""

from __future__ import annotations

from collections import Counter, OrderedDict

from corrector.adapters import AdapterBank, PackedAdapter
from serving.identity import AdapterIdentity


class Slots:
    """Keeps adapters in the bank while rows use them, and after that until their slot is needed: least recently used first.

    Only the loop's thread may use it. There are no fewer slots than rows, so that a row always finds one.
    """

    def __init__(self, bank: AdapterBank) -> None:
        self._bank = bank
        self._free = list(range(bank.slots, 0, -1))
        self._slots: OrderedDict[AdapterIdentity, int] = OrderedDict()
        self._users: Counter[AdapterIdentity] = Counter()
        self.loads = 0
        """Adapters copied to the device so far."""

    def __contains__(self, adapter: AdapterIdentity) -> bool:
        return adapter in self._slots

    @property
    def resident(self) -> tuple[AdapterIdentity, ...]:
        """The adapters on the device, least recently used first."""
        return tuple(self._slots)

    @property
    def has_free(self) -> bool:
        """Whether an adapter could be loaded without taking another's place."""
        return bool(self._free)

    def acquire(self, adapter: AdapterIdentity, packed: PackedAdapter) -> int:
        """The slot of `adapter` for one more row, loaded into it now if it is in none.

        Raises:
            AdapterError: It does not fit the bank; nothing changed but that another may have lost its place.
        """
        if adapter not in self._slots:
            self._load(adapter, packed)
        self._slots.move_to_end(adapter)
        self._users[adapter] += 1
        return self._slots[adapter]

    def release(self, adapter: AdapterIdentity) -> None:
        """A row of `adapter` is done."""
        self._users[adapter] -= 1
        if not self._users[adapter]:
            del self._users[adapter]

    def preload(self, adapter: AdapterIdentity, packed: PackedAdapter) -> bool:
        """Loads `adapter` into a free slot; whether there was one, or it is there already. Raises as :meth:`acquire`."""
        if adapter not in self._slots and self._free:
            self._load(adapter, packed)
        return adapter in self._slots

    def _load(self, adapter: AdapterIdentity, packed: PackedAdapter) -> None:
        if not self._free:
            unused = next(held for held in self._slots if not self._users[held])
            slot = self._slots.pop(unused)
            self._bank.unload(slot)
            self._free.append(slot)
        self._bank.load(self._free[-1], packed)
        self._slots[adapter] = self._free.pop()
        self.loads += 1
