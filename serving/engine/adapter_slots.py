"""AdapterSlots: assigns adapters to the slots of the device's bank."""

from collections import Counter, OrderedDict

from corrector.adapters import AdapterBank, PackedAdapter
from serving.adapter_identity import AdapterIdentity


class AdapterSlots:
    """Keeps adapters in the bank while rows use them, and evicts unused ones, least recently used first, for others.

    Only the loop's thread may use it. There are at least as many slots as rows, so that a row always finds one.
    """

    def __init__(self, bank: AdapterBank) -> None:
        self._bank = bank
        self._free = list(range(bank.slots, 0, -1))
        self._slots: OrderedDict[AdapterIdentity, int] = OrderedDict()
        self._rows: Counter[AdapterIdentity] = Counter()
        self.loads = 0
        """Adapters copied to the device so far."""

    @property
    def resident(self) -> tuple[AdapterIdentity, ...]:
        """The adapters on the device, least recently used first."""
        return tuple(self._slots)

    def acquire(self, adapter: AdapterIdentity, packed: PackedAdapter) -> int:
        """The slot of `adapter` for one more row; loads the adapter where it is in no slot.

        Raises:
            AdapterError: The adapter does not fit the bank; another one may have been evicted.
        """
        if adapter not in self._slots:
            self._load(adapter, packed)
        self._slots.move_to_end(adapter)
        self._rows[adapter] += 1
        return self._slots[adapter]

    def release(self, adapter: AdapterIdentity) -> None:
        """Count one row of `adapter` less."""
        self._rows[adapter] -= 1
        if not self._rows[adapter]:
            del self._rows[adapter]

    def preload(self, adapter: AdapterIdentity, packed: PackedAdapter) -> None:
        """Load `adapter` if a slot is free. Raises as :meth:`acquire`."""
        if adapter not in self._slots and self._free:
            self._load(adapter, packed)

    def _load(self, adapter: AdapterIdentity, packed: PackedAdapter) -> None:
        if not self._free:
            unused = next(resident for resident in self._slots if not self._rows[resident])
            slot = self._slots.pop(unused)
            self._bank.unload(slot)
            self._free.append(slot)
        self._bank.load(self._free[-1], packed)
        self._slots[adapter] = self._free.pop()
        self.loads += 1
