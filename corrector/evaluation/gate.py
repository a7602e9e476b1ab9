"""The promotion gate: its conditions, each with value, threshold and a reason in words."""

from collections.abc import Sequence

from corrector.evaluation.scorecard import Check, DistanceScore, GateVerdict, GuardScore, Measurements
from corrector.prompts import GateThresholds


def judge(measured: Measurements, thresholds: GateThresholds) -> GateVerdict:
    """The verdict on the measurements; a condition that could not be measured fails.

    A stored scorecard can be judged again by other thresholds.
    """
    checks = (
        _sanity(measured),
        _safety(measured, thresholds),
        _enough("enough images", measured.n, thresholds.min_images, "images an arm"),
        _enough(
            "enough held-out exemplars", measured.n_held_out, thresholds.min_held_out, "held-out exemplars"
        ),
        _relative_mmd(measured.distances, thresholds),
        _fid_difference(measured.distances, thresholds),
        _diversity(measured, thresholds),
        _copies(measured, thresholds),
        _guards(measured.guards, thresholds),
        _worst_guard(measured.guards, thresholds),
    )
    return GateVerdict(passed=all(check.passed for check in checks), reasons=checks)


def _sanity(measured: Measurements) -> Check:
    bad = [fault for fault in measured.sanity.faults if fault.arm == "corrected"]
    detail = "every corrected image is a picture"
    if bad:
        others = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
        detail = f'image {bad[0].index} of "{bad[0].prompt}" {bad[0].fault}{others}'
    return _check("sane images", not bad, len(bad), 0, detail)


def _safety(measured: Measurements, thresholds: GateThresholds) -> Check:
    name, most, safety = "safe images", thresholds.max_unsafe_rise, measured.safety
    if safety is None:
        return _unmeasured(name, most, "the safety score was not run")
    rise = (safety.unsafe_corrected - safety.unsafe_base) / safety.n
    detail = (
        f"{safety.unsafe_corrected} of {safety.n} corrected images score above {safety.threshold:g}, "
        f"the base's {safety.unsafe_base}; a rise of at most {most:.0%} wanted"
    )
    return _check(name, rise <= most, rise, most, detail)


def _enough(name: str, found: int, least: int, what: str) -> Check:
    return _check(name, found >= least, found, least, f"{found} {what}, at least {least} wanted")


def _relative_mmd(distances: Sequence[DistanceScore], thresholds: GateThresholds) -> Check:
    name, most = "nearer to the held-out exemplars (relative MMD)", thresholds.max_p
    figures = ", ".join(f"p = {d.relative_mmd_p:.2g} in {d.extractor}" for d in distances)
    return _in_extractors(name, [d.relative_mmd_p for d in distances], most, f"{figures}; below", thresholds)


def _fid_difference(distances: Sequence[DistanceScore], thresholds: GateThresholds) -> Check:
    most = thresholds.max_fid_difference
    figures = ", ".join(f"{d.metric} by {d.fid_difference} at n = {d.n}" for d in distances)
    detail = f"changes {figures}; the upper bound below"
    return _in_extractors("FID falls", [d.fid_difference.high for d in distances], most, detail, thresholds)


def _in_extractors(
    name: str, values: Sequence[float], most: float, detail: str, thresholds: GateThresholds
) -> Check:
    """A condition that has to hold in `min_extractors` of the extractors."""
    if not values:
        return _unmeasured(name, most, "no distances were measured")
    ranked, needed = sorted(values), thresholds.min_extractors
    passed = len(ranked) >= needed and ranked[needed - 1] < most
    value = ranked[min(needed, len(ranked)) - 1]
    return _check(name, passed, value, most, f"{detail} {most:g} wanted in {needed} extractors")


def _diversity(measured: Measurements, thresholds: GateThresholds) -> Check:
    name, least = "still diverse", thresholds.min_diversity
    gating = [score for score in measured.diversity if score.gates]
    if not gating:
        return _unmeasured(name, least, "no diversity was measured")
    lowest = min(gating, key=lambda score: score.ratio)
    detail = (
        f"{lowest.ratio:.2f} of the smaller diversity of base and exemplars ({lowest.measure}; "
        f"{lowest.ratio_to_base:.2f} of the base's), at least {least:g} wanted"
    )
    return _check(name, lowest.ratio >= least, lowest.ratio, least, detail)


def _copies(measured: Measurements, thresholds: GateThresholds) -> Check:
    name, most = "no copies of training exemplars", thresholds.max_near_share
    if not measured.nearest_training:
        return _unmeasured(name, most, "no distances to training exemplars were measured")
    worst = max(measured.nearest_training, key=lambda score: score.near_corrected)
    share = worst.near_corrected
    detail = (
        f"{share:.0%} of the corrected images lie nearer to a training exemplar than "
        f"{worst.percentile:g} % of exemplars do to another ({worst.extractor}); at most {most:.0%} wanted"
    )
    if not worst.through_vae:
        detail += "; the exemplars did not pass the VAE, so a copy may hide behind its texture"
    return _check(name, share <= most, share, most, detail)


def _guards(guards: Sequence[GuardScore], thresholds: GateThresholds) -> Check:
    name, most = "guard prompts not worse", thresholds.max_guard_drop
    if not guards:
        return _no_guards(name, most, thresholds)
    images = sum(guard.n for guard in guards)
    drop = sum(guard.drop * guard.n for guard in guards) / images
    detail = (
        f"{max(drop, 0):.1%} of {images} guard images over {len(guards)} prompts are no longer recognised as "
        f"their prompt's; at most {most:.1%} wanted"
    )
    return _check(name, drop <= most + 1e-9, drop, most, detail)


def _worst_guard(guards: Sequence[GuardScore], thresholds: GateThresholds) -> Check:
    name, most = "no single guard prompt lost", thresholds.max_guard_prompt_drop
    if not guards:
        return _no_guards(name, most, thresholds)
    worst = max(guards, key=lambda guard: guard.drop)
    detail = f'the worst is "{worst.prompt}": {worst.note}; a drop of at most {most:.0%} wanted'
    return _check(name, all(guard.passed for guard in guards), worst.drop, most, detail)


def _no_guards(name: str, threshold: float, thresholds: GateThresholds) -> Check:
    detail = "no guard prompts, so damage to neighbours was not measured"
    if thresholds.require_guards:
        return _unmeasured(name, threshold, detail + "; name some, or set require_guards to false")
    return _check(name, True, None, threshold, detail)


def _unmeasured(name: str, threshold: float, reason: str) -> Check:
    return _check(name, False, None, threshold, reason)


def _check(name: str, passed: bool, value: float | None, threshold: float, detail: str) -> Check:
    return Check(name=name, passed=passed, value=value, threshold=threshold, detail=detail)
