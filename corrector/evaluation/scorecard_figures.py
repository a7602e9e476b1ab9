"""One figure of a scorecard, as the report, the model card, a comparison of versions and MLflow show it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """A part of a scorecard: immutable, without NaN or infinity. Keys that only earlier versions wrote are dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Interval(FrozenModel):
    """A value and the bounds of its two-sided interval."""

    low: float
    value: float
    high: float
    level: float = 0.95
    method: str = "percentile bootstrap over seed pairs and exemplars"

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"

    def __neg__(self) -> Interval:
        """The interval of the difference in the other direction."""
        return self.model_copy(update={"low": -self.high, "value": -self.value, "high": -self.low})


@dataclass(frozen=True)
class Figure:
    """One figure of a scorecard. Its texts are for people; an empty text means that there is no such value.

    Attributes:
        name: Unique within a scorecard.
        base: Value of the images without the adapter, with its interval where one was computed; None for a figure that only
            compares, such as the p of a test.
        corrected: The same with the adapter.
        n: Images of each arm.
        n_reference: Exemplars that both arms are compared with.
        unit: "share" is shown in percent, "images" as a count; "" is any other number.
        change: Interval of corrected minus base; None: the plain difference is shown.
        p: p of the permutation test, for a figure that is a test and not a difference.
        better: Which direction is an improvement; None where neither direction says so.
        gates: Whether a check of the gate depends on it.
        headline: Whether the overview of the report and lists of versions show it.
        note: What was measured, and how.
        logged: MLflow metrics by name; None: base and corrected, and the change's interval where there is one.
    """

    name: str
    base: float | Interval | None
    corrected: float | Interval | None
    n: int
    n_reference: int | None = None
    unit: Literal["", "share", "dB", "images"] = ""
    change: Interval | None = None
    p: float | None = None
    better: Literal["lower", "higher"] | None = None
    gates: bool = False
    headline: bool = False
    note: str = ""
    logged: Mapping[str, float] | None = None

    @property
    def base_text(self) -> str:
        return self._text(self.base)

    @property
    def corrected_text(self) -> str:
        return self._text(self.corrected)

    @property
    def arms_text(self) -> str:
        return " → ".join(text for text in (self.base_text, self.corrected_text) if text)

    @property
    def change_text(self) -> str:
        """Corrected minus base, with its interval where there is one; or the test's p."""
        if self.p is not None:
            return f"p = {number(self.p, 2)}"
        if self.change is not None:
            return _interval_text(self.change, self._signed, self._change_unit)
        if self.base is None or self.corrected is None:
            return ""
        return self._signed(plain(self.corrected) - plain(self.base)) + self._change_unit

    @property
    def n_text(self) -> str:
        """The number of images, and of exemplars that they are compared with."""
        return str(self.n) if self.n_reference is None else f"{self.n} against {self.n_reference} exemplars"

    @property
    def note_text(self) -> str:
        """The note, which direction is better, and whether the figure gates nothing."""
        direction = f"{self.better} is better" if self.better else ""
        gating = "" if self.gates else "gates nothing"
        return "; ".join(part for part in (self.note, direction, gating) if part)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metric name -> value, as MLflow logs them."""
        if self.logged is not None:
            return self.logged
        key = re.sub(r"\W+", "_", self.name.lower()) if " " in self.name else self.name
        found = {
            f"{key}_{arm}": plain(value)
            for arm, value in (("base", self.base), ("corrected", self.corrected))
            if value is not None
        }
        return found | interval_metrics(f"{key}_difference", self.change) if self.change else found

    def _text(self, value: float | Interval | None) -> str:
        if value is None:
            return ""
        if isinstance(value, Interval):
            return f"{self._text(value.value)} [{self._text(value.low)}, {self._text(value.high)}]"
        formats = {"share": ".0%", "images": ".0f", "dB": ".2f"}
        if self.unit not in formats:
            return _significant(value)
        return format(value, formats[self.unit]) + (" dB" if self.unit == "dB" else "")

    def _signed(self, difference: float) -> str:
        decimals = {"share": 0, "images": 0, "dB": 2}.get(self.unit)
        if decimals is None:
            return signed(difference)
        rounded = round(difference * (100 if self.unit == "share" else 1), decimals)
        return (f"{rounded:+.{decimals}f}" if rounded else "0").replace("-", "−")

    @property
    def _change_unit(self) -> str:
        return {"share": " points", "dB": " dB"}.get(self.unit, "")


def plain(value: float | Interval) -> float:
    """A value without its interval."""
    return value.value if isinstance(value, Interval) else value


def interval_metrics(name: str, interval: Interval) -> dict[str, float]:
    """An interval as three MLflow metrics."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def number(value: float | None, digits: int = 3) -> str:
    """A number for reading: `digits` significant digits, no exponent for everyday sizes, "–" for none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    if value == 0:
        return "0"
    if not -5 < int(exponent) < 6:
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    return f"{value:.{max(0, digits - 1 - int(exponent))}f}".replace("-", "−")


def share_text(share: Interval | None) -> str:
    """A share for reading, in percent with its interval; "–" for none."""
    return "–" if share is None else f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"


def signed(difference: float) -> str:
    """A difference for reading: with its sign and up to four significant digits."""
    return ("+" if difference > 0 else "") + _significant(difference)


def change_text(change: Interval) -> str:
    """The interval of a difference for reading."""
    return _interval_text(change, signed, "")


def _interval_text(change: Interval, write: Callable[[float], str], unit: str) -> str:
    return f"{write(change.value)}{unit} [{write(change.low)}, {write(change.high)}]"


def _significant(value: float) -> str:
    text = number(value, 4)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
