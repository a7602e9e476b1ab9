"""When to stop drawing a prompt's own images: looks at more and more pairs, each of which may pass or refuse.

A group-sequential design (Jennison and Turnbull 2000, Group Sequential Methods with Applications to Clinical Trials), whose
error rate is spent by `corrector.prompts.look_shares`. A look refuses where a test's p is so high that more images would
hardly pass it, or where no number of images can help; a refusal cannot raise the error rate of passing.
`tests/evaluation/measure_protocol.py` measures what both cost.
"""

from collections.abc import Mapping

from corrector.evaluation.gate import HELD_OUT_CHECK, NEARER_CHECKS, SANE_CHECK, futile_p, own_checks
from corrector.evaluation.scorecard import Look, Measurements
from corrector.prompts import GateThresholds


def decide(measured: Measurements, shares: Mapping[int, float], thresholds: GateThresholds) -> Look:
    """What the images of the prompt itself say at this look: passed, refused, or draw more.

    Args:
        measured: What was measured of the first `measured.n` pairs.
        shares: Of `corrector.prompts.look_shares`.
    """
    n, most = measured.n, max(shares)
    look = Look(
        n=n, most=most, share=shares[n], decision="passed", why="every condition on the prompt's images holds"
    )
    failed = [
        check
        for check in own_checks(measured.model_copy(update={"looks": (look,)}), thresholds)
        if not check.passed
    ]
    if not failed:
        return look
    hopeless = [
        check
        for check in failed
        if check.value is None
        or check.name in (SANE_CHECK, HELD_OUT_CHECK)
        or (check.name in NEARER_CHECKS and check.value > futile_p(look))
    ]
    if n < most and not hopeless:
        names = ", ".join(check.name for check in failed)
        return look.model_copy(update={"decision": "more", "why": f"not yet: {names}"})
    names = ", ".join(check.name for check in hopeless or failed)
    return look.model_copy(update={"decision": "refused", "why": f"not met: {names}"})
