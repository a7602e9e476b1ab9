"""The promotion gate: every condition with its value, its threshold and its reason in plain words."""

from collections.abc import Sequence

from corrector.evaluation.scorecard import Check, DistanceScore, GateVerdict, GuardScore, Measurements
from corrector.prompts import GateThresholds


def judge(measured: Measurements, thresholds: GateThresholds) -> GateVerdict:
    """All conditions of "How a correction is judged"; a condition that could not be measured is not passed.

    It needs nothing but the measurements, so a stored scorecard can be judged again by other thresholds.
    """
    checks = (
        _sanity(measured),
        _safety(measured, thresholds),
        _enough_images(measured, thresholds),
        _enough_exemplars(measured, thresholds),
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
        first = bad[0]
        others = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
        detail = f'image {first.index} of "{first.prompt}" {first.fault}{others}'
    return Check(name="sane images", passed=not bad, value=len(bad), threshold=0, detail=detail)


def _safety(measured: Measurements, thresholds: GateThresholds) -> Check:
    name, safety = "safe images", measured.safety
    if safety is None:
        return _unmeasured(name, thresholds.max_unsafe_rise, "the safety score was not run")
    before, after, most = safety.unsafe_base, safety.unsafe_corrected, thresholds.max_unsafe_rise
    rise = (after - before) / safety.n
    detail = (
        f"{after} of {safety.n} corrected images score above {safety.threshold:g}, the base's {before}; "
        f"a rise of at most {most:.0%} wanted"
    )
    return Check(name=name, passed=rise <= most, value=rise, threshold=most, detail=detail)


def _enough_images(measured: Measurements, thresholds: GateThresholds) -> Check:
    least = thresholds.min_images
    detail = f"{measured.n} images an arm, at least {least} wanted"
    return Check(
        name="enough images", passed=measured.n >= least, value=measured.n, threshold=least, detail=detail
    )


def _enough_exemplars(measured: Measurements, thresholds: GateThresholds) -> Check:
    held_out, least = measured.n_held_out, thresholds.min_held_out
    detail = f"{held_out} held-out exemplars, at least {least} wanted"
    return Check(
        name="enough held-out exemplars",
        passed=held_out >= least,
        value=held_out,
        threshold=least,
        detail=detail,
    )


def _relative_mmd(distances: Sequence[DistanceScore], thresholds: GateThresholds) -> Check:
    name, needed = "nearer to the held-out exemplars (relative MMD)", thresholds.min_extractors
    if not distances:
        return _unmeasured(name, thresholds.max_p, "no distances were measured")
    ranked = sorted(distance.relative_mmd_p for distance in distances)
    figures = ", ".join(f"p = {d.relative_mmd_p:.2g} in {d.extractor}" for d in distances)
    return Check(
        name=name,
        passed=len(ranked) >= needed and ranked[needed - 1] < thresholds.max_p,
        value=ranked[min(needed, len(ranked)) - 1],
        threshold=thresholds.max_p,
        detail=f"{figures}; below {thresholds.max_p:g} wanted in {needed} extractors",
    )


def _fid_difference(distances: Sequence[DistanceScore], thresholds: GateThresholds) -> Check:
    name, needed, most = "FID falls", thresholds.min_extractors, thresholds.max_fid_difference
    if not distances:
        return _unmeasured(name, most, "no distances were measured")
    ranked = sorted(distance.fid_difference.high for distance in distances)
    figures = ", ".join(f"{d.metric} by {d.fid_difference} at n = {d.n}" for d in distances)
    return Check(
        name=name,
        passed=len(ranked) >= needed and ranked[needed - 1] < most,
        value=ranked[min(needed, len(ranked)) - 1],
        threshold=most,
        detail=f"changes {figures}; the upper bound below {most:g} wanted in {needed} extractors",
    )


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
    return Check(name=name, passed=lowest.ratio >= least, value=lowest.ratio, threshold=least, detail=detail)


def _copies(measured: Measurements, thresholds: GateThresholds) -> Check:
    name, most = "no copies of training exemplars", thresholds.max_near_share
    if not measured.nearest_training:
        return _unmeasured(name, most, "no distances to training exemplars were measured")
    worst = max(measured.nearest_training, key=lambda score: score.near_corrected)
    detail = (
        f"{worst.near_corrected:.0%} of the corrected images lie nearer to a training exemplar than "
        f"{worst.percentile:g} % of exemplars do to another ({worst.extractor}); at most {most:.0%} wanted"
    )
    if not worst.through_vae:
        detail += "; the exemplars did not pass the VAE, so a copy may hide behind its texture"
    return Check(
        name=name,
        passed=worst.near_corrected <= most,
        value=worst.near_corrected,
        threshold=most,
        detail=detail,
    )


def _guards(guards: Sequence[GuardScore], thresholds: GateThresholds) -> Check:
    name, most = "guard prompts not worse", thresholds.max_guard_drop
    if not guards:
        return _no_guards(name, most, thresholds)
    images = sum(guard.n for guard in guards)
    drop = sum(guard.drop * guard.n for guard in guards) / images
    detail = (
        f"{_points(drop)} of {images} guard images over {len(guards)} prompts are no longer recognised as "
        f"their prompt's; at most {most:.1%} wanted"
    )
    return Check(name=name, passed=drop <= most + 1e-9, value=drop, threshold=most, detail=detail)


def _worst_guard(guards: Sequence[GuardScore], thresholds: GateThresholds) -> Check:
    name, most = "no single guard prompt lost", thresholds.max_guard_prompt_drop
    if not guards:
        return _no_guards(name, most, thresholds)
    worst = max(guards, key=lambda guard: guard.drop)
    detail = f'the worst is "{worst.prompt}": {worst.note}; a drop of at most {most:.0%} wanted'
    passed = all(guard.passed for guard in guards)
    return Check(name=name, passed=passed, value=worst.drop, threshold=most, detail=detail)


def _no_guards(name: str, threshold: float, thresholds: GateThresholds) -> Check:
    detail = "no guard prompts, so damage to neighbours was not measured"
    if thresholds.require_guards:
        detail += "; name some, or set require_guards to false"
    return Check(
        name=name, passed=not thresholds.require_guards, value=None, threshold=threshold, detail=detail
    )


def _unmeasured(name: str, threshold: float | None, reason: str) -> Check:
    return Check(name=name, passed=False, value=None, threshold=threshold, detail=reason)


def _points(drop: float) -> str:
    return f"{max(drop, 0):.1%}"
