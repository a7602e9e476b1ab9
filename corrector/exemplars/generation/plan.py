"""What a collection shall hold and what it may cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Plan:
    """What to collect.

    Attributes:
        prompts: The failing prompt, then other wordings of it; all are asked for equally often.
        count: Images to store.
        price: Dollars an image.
        budget: Dollars that may be spent over all runs in the folder.
        max_images: Images that may be paid for over all runs in the folder.
        images_per_request: At least 1; some models take no more.
        parallel: Requests at a time.
        patience: Seconds for which an API that does not take requests is asked again.
    """

    prompts: tuple[str, ...]
    count: int
    price: Decimal
    budget: Decimal
    max_images: int
    images_per_request: int = 1
    parallel: int = 4
    patience: float = 600.0

    def affordable(self, spent: Decimal, paid_images: int) -> int:
        """How many more images the budget allows."""
        by_number = max(0, self.max_images - paid_images)
        if self.price == 0:
            return by_number
        return min(by_number, max(0, int((self.budget - spent) // self.price)))

    def next_prompt(self, asked: Mapping[str, int], refused: Collection[str]) -> str | None:
        """The prompt of which the fewest images are stored or asked for; None where the API refused all."""
        open_prompts = [prompt for prompt in self.prompts if prompt not in refused]
        return min(open_prompts, key=lambda prompt: asked.get(prompt, 0), default=None)
