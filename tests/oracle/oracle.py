"""The oracle: a small convolutional network with heads for subject, pose, place and anatomy."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from tests.world.scenes import PLACES, SUBJECTS, Scene

WEIGHTS = Path(__file__).with_name("oracle.safetensors")
POSES = ("", "standing", "sitting", "lying", "jumping", "running")


@dataclass(frozen=True)
class Verdict:
    """What the oracle sees; `pose` is empty for things, `intact` is False for wrong anatomy."""

    subject: str
    pose: str
    place: str
    intact: bool

    def fits(self, scene: Scene) -> bool:
        """Whether the picture shows the scene (colour aside) with sound anatomy."""
        return self.intact and (self.subject, self.pose, self.place) == (
            scene.subject,
            scene.pose,
            scene.place,
        )


class Network(nn.Module):
    """Convolutions from [N, 3, 64, 64] in 0..1 to logits for subject, pose, place and intact."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, stride in ((24, 1), (40, 2), (56, 2), (80, 2), (80, 1), (96, 2), (96, 1)):
            layers += [
                nn.Conv2d(channels, width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.SiLU(),
            ]
            channels = width
        self.trunk = nn.Sequential(*layers)
        self.pool = nn.Conv2d(channels, 32, 1)
        self.hidden = nn.Linear(32 * 16 + channels, 96)
        self.heads = nn.ModuleDict(
            {
                "subject": nn.Linear(96, len(SUBJECTS)),
                "pose": nn.Linear(96, len(POSES)),
                "place": nn.Linear(96, len(PLACES)),
                "intact": nn.Linear(96, 2),
            }
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits by head, each [N, classes]."""
        found = self.features(images)
        return {name: head(found) for name, head in self.heads.items()}

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The last hidden layer, [N, 96]."""
        maps = self.trunk(images * 2 - 1)
        flat = torch.cat([self.pool(maps).flatten(1), maps.mean(dim=(2, 3))], dim=1)
        return functional.silu(self.hidden(flat))


class Oracle:
    """Judges pictures of the embedded world."""

    def __init__(self, network: Network) -> None:
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> "Oracle":
        """From the weights beside this file."""
        network = Network()
        network.load_state_dict(
            {name: value.float() for name, value in load_file(path).items()}, strict=False
        )
        return cls(network)

    @torch.no_grad()
    def judge(self, images: torch.Tensor) -> list[Verdict]:
        """A verdict for each of [N, 3, 64, 64] images in 0..1."""
        logits = self.network(images.float())
        columns = [logits[name].argmax(1).tolist() for name in ("subject", "pose", "place", "intact")]
        return [
            Verdict(SUBJECTS[subject], POSES[pose], PLACES[place], bool(intact))
            for subject, pose, place, intact in zip(*columns, strict=True)
        ]

    def right_rate(self, images: torch.Tensor, scene: Scene) -> float:
        """The fraction of [N, 3, 64, 64] images in 0..1 that show the scene with sound anatomy."""
        verdicts = self.judge(images)
        return sum(verdict.fits(scene) for verdict in verdicts) / len(verdicts)
