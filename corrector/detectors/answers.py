"""Answers: what an API was paid for, and how much was spent, on disk."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from filelock import FileLock

from corrector.files import write_atomically


class Answers:
    """The answers of one model of one API. Processes that share the folder share its budget.

    Money is reserved before a request is sent. So the budget holds, and what a killed process asked for counts as spent.
    """

    def __init__(self, folder: Path, price: Decimal, budget: Decimal) -> None:
        """`price`: dollars for one image."""
        self._folder, self._price, self.budget = folder, price, budget
        self._ledger = folder / "spent.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "spent.lock")

    def get(self, key: str) -> Any:
        """What was put under `key`; None where there is nothing, or a damaged file."""
        try:
            return json.loads(self._file(key).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def put(self, key: str, answer: Any) -> None:
        file = self._file(key)
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, json.dumps(answer))

    @property
    def spent(self) -> Decimal:
        """Dollars that were spent or may have been."""
        try:
            return Decimal(json.loads(self._ledger.read_text())["spent"])
        except FileNotFoundError:
            return Decimal(0)

    def reserve(self, images: int) -> bool:
        """Count the price of an answer about so many images as spent; False where the budget does not allow it."""
        with self._lock:
            spent = self.spent + images * self._price
            if spent > self.budget:
                return False
            self._write(spent)
            return True

    def refund(self, images: int) -> None:
        """Take back one reservation: the request was not billed."""
        with self._lock:
            self._write(self.spent - images * self._price)

    def _write(self, spent: Decimal) -> None:
        write_atomically(self._ledger, json.dumps({"spent": str(spent)}), durable=True)

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
