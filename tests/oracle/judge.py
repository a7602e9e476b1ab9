"""The oracle as a judge of images, for the gate: right is what shows the prompt's scene with sound anatomy."""

from collections.abc import Sequence

from torch import Tensor

from tests.oracle.oracle import Oracle
from tests.world.scenes import canonical_prompt, paraphrases, scenes

SCENES = {text: scene for scene in scenes() for text in (canonical_prompt(scene), *paraphrases(scene))}


class OracleJudge:
    """Judges images of prompts in the world's own words."""

    name = "oracle"

    def __init__(self) -> None:
        self._oracle = Oracle.load()

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Sequence[bool]:
        """Whether each of `images` `[N, 3, 64, 64]` in 0..1 shows the scene of its prompt."""
        verdicts = self._oracle.judge(images)
        return [verdict.fits(SCENES[prompt]) for verdict, prompt in zip(verdicts, prompts, strict=True)]
