"""Measures what the protocol of judgement rests on, with rendered scenes whose truth is known, and prints it.

    python -m tests.benchmarks.protocol

About a minute of one core. "Repaired by a quarter": a quarter of the base's images is broken, of the
corrected none.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from corrector.evaluation import default_extractors
from corrector.evaluation.distances import compare_frechet, frechet_distance, relative_mmd
from corrector.evaluation.diversity import exemplar_spacing, mean_pairwise_distance, nearness
from corrector.evaluation.features import FeatureExtractor, torch_threads
from corrector.evaluation.guards import kept
from corrector.evaluation.similarity import inside_set, ssim_matrix
from tests.support.scenes import FAILING, pictures
from tests.world.scenes import Scene

OTHERS = (
    Scene("robot", "jumping", "street"),
    Scene("dog", "sitting", "snow"),
    Scene("cat", "running", "beach"),
)
NEIGHBOURS = (
    Scene("person", "sitting", "grass"),
    Scene("person", "jumping", "grass"),
    Scene("person", "running", "street"),
    Scene("person", "standing", "grass"),
    Scene("dog", "running", "grass"),
)
HELD_OUT = 12

Arms = Callable[[int], tuple[Tensor, Tensor]]


class Measurement:
    """Everything that is measured in one extractor's features, from one stream of random draws."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.name = extractor.name
        self.generator = torch.Generator().manual_seed(0)
        self.true = extractor(pictures(FAILING, range(300)))
        self.broken = extractor(pictures(FAILING, range(150), broken=True))
        self.neighbours = [extractor(pictures(scene, range(24))) for scene in NEIGHBOURS]
        self.anomalies = [extractor(pictures(scene, range(16), broken=True)) for scene in NEIGHBOURS]
        self.pairs = [
            tuple(extractor(pictures(scene, range(32), broken)) for broken in (False, True))
            for scene in (FAILING, *OTHERS)
        ]

    def draw(self, features: Tensor, n: int) -> Tensor:
        """n different rows."""
        return features[torch.randperm(len(features), generator=self.generator)[:n]]

    def scenarios(self) -> tuple[Tensor, dict[str, Arms]]:
        """Held-out exemplars, and functions that draw base and corrected arms of n images."""
        held_out, first, second = self.true[:HELD_OUT], self.true[HELD_OUT:156], self.true[156:]

        def quarter(n: int) -> tuple[Tensor, Tensor]:
            mixed = torch.cat([self.draw(self.broken, n // 4), self.draw(first, n - n // 4)])
            return self.draw(mixed, n), self.draw(second, n)

        return held_out, {
            "broken to true": lambda n: (self.draw(self.broken, n), self.draw(second, n)),
            "nothing changed": lambda n: (self.draw(first, n), self.draw(second, n)),
            "repaired by a quarter": quarter,
        }

    def intervals(self, repeats: int = 100) -> None:
        """How often the percentile and the basic interval hold the mean difference, and lie below zero."""
        held_out, scenarios = self.scenarios()
        for (title, arms), n in ((item, n) for item in scenarios.items() for n in (16, 32)):
            draws = [arms(n) for _ in range(200)]
            differences = [frechet_distance(b, held_out) - frechet_distance(a, held_out) for a, b in draws]
            mean, deviation = torch.tensor(differences).mean(), torch.tensor(differences).std()
            counts = torch.zeros(5)
            for seed, (base, corrected) in enumerate(draws[:repeats]):
                found = compare_frechet(base, corrected, held_out, resamples=200, seed=seed)
                p = relative_mmd(base, corrected, held_out, permutations=1000, seed=seed).p
                low, high = found.difference_bounds
                basic = 2 * found.difference - high, 2 * found.difference - low
                hits = (low <= mean <= high, high < 0, basic[0] <= mean <= basic[1], basic[1] < 0, p < 0.01)
                counts += torch.tensor([float(hit) for hit in hits]) / repeats
            print(
                f"  {title}, n = {n}: FID difference {mean:.1f}, sd {deviation:.1f}; percentile holds it "
                f"{counts[0]:.0%}, below zero {counts[1]:.0%}; basic {counts[2]:.0%}, {counts[3]:.0%}; "
                f"relative MMD p < 0.01 {counts[4]:.0%}"
            )

    def diversity(self) -> None:
        """What a right correction keeps of a broken base's diversity, and collapse of a right one's."""
        for scene, (true, broken) in zip((FAILING, *OTHERS), self.pairs, strict=True):
            right = mean_pairwise_distance(true)
            collapsed = [mean_pairwise_distance(true[:k].repeat(32 // k, 1)) / right for k in (2, 4, 8)]
            figures = ", ".join(f"{share:.2f}" for share in collapsed)
            ratio = right / mean_pairwise_distance(broken)
            print(f"  {scene.subject}: true over broken {ratio:.2f}; onto 2, 4, 8 pictures {figures}")

    def copies(self, repeats: int = 300) -> None:
        """The share of fresh scenes nearer to a training exemplar than 95 % of exemplars are."""
        shares = []
        for _ in range(repeats):
            drawn = self.draw(self.true, 56)
            bound = exemplar_spacing(drawn[:12], drawn[12:24], 95).bound
            shares.append(nearness(drawn[24:], drawn[:12], drawn[12:24], bound).near)
        found = torch.tensor(shares)
        beyond = (found > 1 / 3).float().mean()
        print(f"  fresh scenes: near {found.mean():.1%}, above one third in {beyond:.1%}")

    def guards(self, repeats: int = 60) -> None:
        """The drop that is measured for a known share of guard images turned into something else."""
        for title, share in (
            ("fresh seeds", 0.0),
            *((t, s) for t in ("leaked", "anomalous") for s in (0.1, 0.25, 1.0)),
        ):
            drops = []
            for _ in range(repeats):
                base, corrected = [], []
                for own, anomaly in zip(self.neighbours, self.anomalies, strict=True):
                    drawn = self.draw(own, 16)
                    turned = torch.rand(8, 1, generator=self.generator) < share
                    other = self.draw(self.true if title == "leaked" else anomaly, 8)
                    base.append(drawn[:8])
                    corrected.append(torch.where(turned, other, drawn[8:]))
                found = kept(base, corrected, (self.draw(self.broken, 32), self.draw(self.true, 32)))
                rates = [torch.cat([getattr(k, arm) for k in found]).mean() for arm in ("base", "corrected")]
                drops.append(float(rates[0] - rates[1]))
            print(f"  {title} {share:.0%}: drop {torch.tensor(drops).mean():.1%}")


def main() -> None:
    """Print every measurement for every extractor."""
    with torch_threads(1), torch.inference_mode():
        for extractor in default_extractors():
            print(extractor.name)
            measurement = Measurement(extractor)
            measurement.intervals()
            measurement.diversity()
            measurement.copies()
            measurement.guards()
        print("1 - SSIM inside the set, true over broken; onto 4 pictures")
        for scene in (FAILING, *OTHERS):
            true, broken = pictures(scene, range(32)), pictures(scene, range(32), broken=True)
            sets = (true, broken, true[:4].repeat(8, 1, 1, 1))
            right, wrong, few = (1 - inside_set(ssim_matrix(images, images)) for images in sets)
            print(f"  {scene.subject}: {right / wrong:.2f}; {few / right:.2f}")


if __name__ == "__main__":
    main()
