"""look_shares: at how many images the gate looks at a prompt's own, and how much of its error rate each look may spend."""

from corrector.prompts.evaluation_settings import EvaluationSettings
from corrector.prompts.gate_thresholds import GateThresholds


def look_shares(settings: EvaluationSettings, thresholds: GateThresholds) -> dict[int, float]:
    """Images of each arm at every look -> the share of `max_p` that it may spend; 0 where a look may only refuse.

    The error rate is spent as the square of the share of images drawn (Lan and DeMets 1983, Discrete sequential boundaries for
    clinical trials, Biometrika 70). The looks' p are added up, so that the bound holds whatever their dependence is: the
    shares add up to 1. There is one look where `settings` ask for the whole protocol.
    """
    most = settings.images
    looks = (
        [*range(settings.look_images, most, settings.look_images), most] if settings.stop_early else [most]
    )
    shares, spent = {}, 0.0
    for n in looks:
        until = (n / most) ** 2 if n >= min(thresholds.min_images, most) else spent
        shares[n], spent = until - spent, until
    return shares
