"""The promotion gate: its conditions, each with value, threshold and a reason in words, and the grade of what has passed."""

from collections.abc import Iterator, Sequence
from math import comb

from corrector.evaluation.scorecard import Check, GateVerdict, Look, Measurements
from corrector.evaluation.scorecard_parts import DistanceScore, NearestScore, VerdictScore
from corrector.prompts import GateThresholds

SANE_CHECK = "sane images"
HELD_OUT_CHECK = "enough held-out exemplars"
NEARER_CHECKS = ("nearer to the held-out exemplars", "nearer by more than style")
_DECIDES_COPIES = 8
"""Exemplars, half of them held out, of which the permutation test for copies can reach 1 / 70."""


def judge(measured: Measurements, thresholds: GateThresholds) -> GateVerdict:
    """The verdict on the measurements; a condition that could not be measured fails.

    Guard prompts are not judged where the prompt's own images were refused before any was drawn. A stored scorecard can be
    judged again by other thresholds.
    """
    checks, verdicts = own_checks(measured, thresholds), measured.decisive_verdicts
    if (
        measured.guards
        or measured.guard_shifts
        or not (measured.looks and measured.looks[-1].decision == "refused")
    ):
        checks += (_guards(measured, thresholds),)
        if verdicts is not None:
            checks += (_right_guards(verdicts, thresholds),)
    passed = all(check.passed for check in checks)
    return GateVerdict(
        passed=passed,
        reasons=checks,
        grade=None if not passed else "improved" if verdicts is None else "fixed",
        unknown=tuple(_unknown(measured, thresholds)),
    )


def own_checks(measured: Measurements, thresholds: GateThresholds) -> tuple[Check, ...]:
    """The conditions on the images of the prompt itself."""
    checks = (
        _sanity(measured),
        _safety(measured, thresholds),
        _enough(HELD_OUT_CHECK, measured.n_held_out, thresholds.min_held_out, "held-out exemplars"),
        *_nearer(measured, thresholds),
        _diversity(measured, thresholds),
        _copies(measured.nearest_training, thresholds),
    )
    if not (measured.looks and measured.looks[-1].n < measured.looks[-1].most):
        checks += (_enough("enough images", measured.n, thresholds.min_images, "images an arm"),)
    if thresholds.max_fid_difference is not None:
        checks += (_fid_difference(measured.distances, thresholds, thresholds.max_fid_difference),)
    if measured.decisive_verdicts is not None or thresholds.min_grade == "fixed":
        checks += (_right_images(measured, thresholds),)
    return checks


def _unknown(measured: Measurements, thresholds: GateThresholds) -> list[str]:
    """What the verdict cannot know, in words."""
    found = []
    if measured.decisive_verdicts is None:
        found.append(
            f"how many images are right: {_no_verdicts(measured)}, and images that are still wrong may lie nearer"
        )
        if measured.guards or measured.guard_shifts:
            found.append(
                "whether guard images broke without ceasing to look like their prompt: that needs a judge of images"
            )
    exemplars = measured.n_training + measured.n_held_out
    if not _copies_decidable(measured.n_training, measured.n_held_out, thresholds):
        found.append(
            f"whether images copy training exemplars: {exemplars} exemplars cannot decide it, {_DECIDES_COPIES} would"
        )
    return found


def _no_verdicts(measured: Measurements) -> str:
    """Why there is no verdict an image that decides."""
    if measured.verdicts is None:
        return "no judge of images is configured"
    return f"{measured.verdicts.judge} is advisory: {measured.verdicts.advisory}"


def _copies_decidable(training: int, held_out: int, thresholds: GateThresholds) -> bool:
    return comb(training + held_out, training) * thresholds.max_copy_p >= 1


def _sanity(measured: Measurements) -> Check:
    bad = [fault for fault in measured.sanity.faults if fault.arm == "corrected"]
    detail = "every corrected image is a picture"
    if bad:
        others = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
        detail = f'image {bad[0].index} of "{bad[0].prompt}" {bad[0].fault}{others}'
    return _check(SANE_CHECK, not bad, len(bad), 0, detail)


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


def _nearer(measured: Measurements, thresholds: GateThresholds) -> Iterator[Check]:
    """The paired test and its style control, at the share of the error rate that the last look may spend."""
    look = measured.looks[-1] if measured.looks else None
    most = thresholds.max_p * (look.share if look else 1)
    wanted = f"below {most:g} wanted in {thresholds.min_extractors} extractors"
    if look and not look.share:
        wanted = f"at {look.n} of {look.most} images no p passes, and one above {futile_p(look):.2g} refuses"
    least = thresholds.min_beyond_style
    plain = [(test.p, f"p = {test.p:.2g} in {test.extractor}") for test in measured.nearer]
    # A test of pairs sees the smallest rest that a style leaves, so the rest must be a part of the whole, too.
    restyled = [
        (
            test.restyled_p if test.beyond_style >= least else 1.0,
            f"p = {test.restyled_p:.2g} in {test.extractor} with {max(test.beyond_style, 0):.0%} of the fall left",
        )
        for test in measured.nearer
    ]
    for name, tests, against, also in (
        (NEARER_CHECKS[0], plain, "the base", ""),
        (NEARER_CHECKS[1], restyled, "the base in the corrected images' style", f", and {least:.0%} left"),
    ):
        figures = ", ".join(figure for _, figure in tests)
        detail = f"against {against} {figures} at n = {measured.n}; {wanted}{also}"
        yield _in_extractors(name, [p for p, _ in tests], most, detail, thresholds)


def futile_p(look: Look) -> float:
    """The p of a paired test above which a look refuses; 0 at the last."""
    return (1 - look.n / look.most) / 2


def _fid_difference(distances: Sequence[DistanceScore], thresholds: GateThresholds, most: float) -> Check:
    figures = ", ".join(f"{d.metric} by {d.fid_difference} at n = {d.n}" for d in distances)
    detail = (
        f"changes {figures}; the upper bound below {most:g} wanted in {thresholds.min_extractors} extractors"
    )
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
    return _check(name, passed, value, most, detail)


def _diversity(measured: Measurements, thresholds: GateThresholds) -> Check:
    name, least = "still diverse", thresholds.min_diversity
    gating = [score for score in measured.diversity if score.gates]
    if not gating:
        return _unmeasured(name, least, "no diversity was measured")
    lowest = min(gating, key=lambda score: score.ratio)
    detail = f"{lowest.ratio:.2f} of the base's ({lowest.measure}), at least {least:g} wanted"
    return _check(name, lowest.ratio >= least, lowest.ratio, least, detail)


def _copies(nearest: Sequence[NearestScore], thresholds: GateThresholds) -> Check:
    """Refused where too many images are too near to training exemplars and prefer them to held-out ones, or nearly all are."""
    name = "no copies of training exemplars"
    if not nearest:
        return _unmeasured(
            name, thresholds.max_near_share, "no distances to training exemplars were measured"
        )

    def most(score: NearestScore) -> float:
        prefers = score.preference_p is None or score.preference_p <= thresholds.max_copy_p
        return thresholds.max_near_share if prefers else thresholds.max_near_share_alone

    worst = max(nearest, key=lambda score: score.near_corrected - most(score))
    share, p = worst.near_corrected, worst.preference_p
    detail = (
        f"{share:.0%} of the corrected images lie nearer to a training exemplar than "
        f"{worst.percentile:g} % of exemplars do to another ({worst.extractor}); at most {most(worst):.0%} wanted"
    )
    if p is not None:
        detail += f"; p = {p:.2g} that they do not prefer training to held-out exemplars"
    if not worst.through_vae:
        detail += "; the exemplars did not pass the VAE, so a copy may hide behind its texture"
    return _check(name, share <= most(worst), share, most(worst), detail)


def _right_images(measured: Measurements, thresholds: GateThresholds) -> Check:
    name, least, verdicts = "right images", thresholds.min_right_rate, measured.decisive_verdicts
    if verdicts is None:
        return _unmeasured(
            name, least, f"the grade fixed needs a judge of images that decides; {_no_verdicts(measured)}"
        )
    rate, p, most = verdicts.right_corrected, verdicts.own.p_better, thresholds.max_right_p
    detail = (
        f"{verdicts.judge} calls {rate.value:.0%} of {len(verdicts.own.corrected)} corrected images right, of the base's "
        f"{verdicts.right_base.value:.0%}; lower bound {rate.low:.2f}, at least {least:g} wanted; "
        f"p = {p:.2g}, below {most:g} wanted"
    )
    return _check(name, rate.low >= least and p < most, rate.low, least, detail)


def _right_guards(verdicts: VerdictScore, thresholds: GateThresholds) -> Check:
    name, least = "guard images stay right", thresholds.max_right_p
    if not verdicts.guards:
        return _no_guards(name, least, thresholds)
    worst = min(verdicts.guards, key=lambda guard: guard.p_worse)
    detail = (
        f'{verdicts.judge} finds most harm to "{worst.prompt}": {sum(worst.base)} of {len(worst.base)} images right '
        f"before, {sum(worst.corrected)} after, p = {worst.p_worse:.2g}; at least {least:g} wanted"
    )
    return _check(name, worst.p_worse >= least, worst.p_worse, least, detail)


def _guards(measured: Measurements, thresholds: GateThresholds) -> Check:
    """Of every guard prompt no image is lost, or its predictions did not move, so that no image was drawn."""
    name, most = "no guard images lost", thresholds.max_lost_guard_images
    drawn = {guard.prompt for guard in measured.guards}
    still = [shift for shift in measured.guard_shifts if shift.prompt not in drawn]
    if not drawn and not still:
        return _no_guards(name, most, thresholds)
    details = []
    if still:
        largest = max(shift.largest for shift in still)
        details.append(
            f"predictions for {len(still)} guard prompts move by at most {largest:.0%} towards the corrected prompt's, so "
            f"that none of their images were drawn; at most {thresholds.max_guard_shift:.0%} wanted"
        )
    if measured.guards:
        worst = max(measured.guards, key=lambda guard: guard.lost)
        details.append(
            f'of "{worst.prompt}" {worst.lost} of {worst.n} images are no longer recognised as their prompt\'s; '
            f"at most {most} of any of {len(drawn)} guard prompts wanted"
        )
    lost = max((guard.lost for guard in measured.guards), default=0)
    moved = any(shift.largest > thresholds.max_guard_shift for shift in still)
    return _check(name, lost <= most and not moved, lost, most, "; ".join(details))


def _no_guards(name: str, threshold: float, thresholds: GateThresholds) -> Check:
    detail = "no guard prompts, so damage to neighbours was not measured"
    if thresholds.require_guards:
        return _unmeasured(name, threshold, detail + "; name some, or set require_guards to false")
    return _check(name, True, None, threshold, detail)


def _unmeasured(name: str, threshold: float, reason: str) -> Check:
    return _check(name, False, None, threshold, reason)


def _check(name: str, passed: bool, value: float | None, threshold: float, detail: str) -> Check:
    return Check(name=name, passed=passed, value=value, threshold=threshold, detail=detail)
