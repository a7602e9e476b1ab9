"""Draws images of the base on the cluster: Ray actors that hold the base, one for each GPU or share of a machine's cores.

An image is kept in the run's storage as a correction keeps the base's images, and drawn only where it is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool
from torch import Tensor

from corrector.base import BaseSpec
from corrector.drawing import BLOCK_ROWS, BaseImages, Block
from corrector.errors import UserError
from corrector.evaluation.images import as_stored
from corrector.loaded_base import NEGATIVE_PROMPT, Base
from corrector.prompts import EvaluationSettings
from corrector.storage import Storage
from jobs.inputs.counted_cache import CountedCache, count_cache_read
from jobs.inputs.encoding import TEXTS_PER_SHARE, EncodingDevice, Share, encode
from jobs.inputs.ray_tasks import bound_threads, get_results
from jobs.lanes.node_check import alive_nodes, check_nodes
from jobs.lanes.plan import NodeResources, weights_bytes

RETRIES = 3
"""How often an actor is started again after its process died, and how often it is asked again."""
_WEIGHTS_SHARE = 0.25
"""Share of a machine's memory that the copies of the base on it may take."""


class Drawer:
    """Holds the base in one process."""

    def __init__(
        self, spec: BaseSpec, cache: Storage, evaluation: EvaluationSettings, device: str, threads: int
    ) -> None:
        bound_threads(threads)
        self._base = Base(spec, device=device, cache=CountedCache(cache, count_cache_read))
        self._evaluation = evaluation

    def draw(self, blocks: Sequence[Block], side: int) -> list[tuple[Block, Tensor]]:
        """Draw the images of `blocks` together and keep them; returns each block with its images `[N, 3, H, W]`, 8 bits.

        Raises:
            UserError: The base draws values that are not finite, or cannot be loaded.
        """
        rows = [row for block in blocks for row in block]
        embeddings = self._base.encode([NEGATIVE_PROMPT, *(text for text, _ in rows)])
        asked = self._base.rows(
            rows,
            embeddings,
            num_inference_steps=self._evaluation.num_inference_steps,
            guidance_scale=self._evaluation.guidance_scale,
        )
        images = as_stored(self._base.sample_rows(asked, height=side, width=side))
        if not images.isfinite().all():
            raise UserError(
                f"{self._base.spec.name}: draws values that are not finite; choose another --precision or --base"
            )
        kept, parts = BaseImages(self._base, self._evaluation, side), images.split(list(map(len, blocks)))
        for block, part in zip(blocks, parts, strict=True):
            kept.put(block, part)
        kept.trim()
        return [
            (block, part.mul(255).round().to(torch.uint8)) for block, part in zip(blocks, parts, strict=True)
        ]


class ClusterDrawing:
    """Draws on the connected cluster; its actors start with the first image that is not kept."""

    def __init__(
        self, spec: BaseSpec, cache: Storage, evaluation: EvaluationSettings, texts: Iterable[str]
    ) -> None:
        """`texts`: all that may be drawn; they are encoded together."""
        self._spec, self._cache, self._evaluation = spec, cache, evaluation
        self._texts = tuple(dict.fromkeys((NEGATIVE_PROMPT, *texts)))
        self._device, self._most = plan_drawing(alive_nodes(), weights_bytes(spec, "cpu"))
        self._base = Base(spec, device=self._device.kind, cache=CountedCache(cache, count_cache_read))
        self._actors: list[Any] = []
        self.drawn = 0
        """Images that were drawn, and not found."""

    def kept(self, block: Block, side: int) -> Tensor | None:
        """The images `[N, 3, H, W]` in 0..1 of a block, where they are kept."""
        return BaseImages(self._base, self._evaluation, side).get(block)

    def images(self, blocks: Mapping[Block, int]) -> Iterator[tuple[Block, Tensor]]:
        """Each block of `blocks` (block -> side in pixels) with its images `[N, 3, H, W]` in 0..1, as they come.

        Raises:
            UserError: The base cannot be used, or actors die again and again.
        """
        missing: dict[int, list[Block]] = {}
        for block, side in blocks.items():
            if (found := self.kept(block, side)) is not None:
                yield block, found
            else:
                missing.setdefault(side, []).append(block)
        together = max(1, self._base.rows_at_once // BLOCK_ROWS)
        work = [
            (wanted[first : first + together], side)
            for side, wanted in missing.items()
            for first in range(0, len(wanted), together)
        ]
        if not work:
            return
        pool = ActorPool(self._started(len(work)))
        try:
            for drawn in pool.map_unordered(lambda actor, each: actor.draw.remote(*each), work):
                for block, images in drawn:
                    self.drawn += len(block)
                    yield block, images.float().div(255)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except RayActorError as error:
            raise UserError(
                f"a process that draws died {RETRIES + 1} times: {str(error).strip().splitlines()[0]}; look at its node's "
                "memory, then submit again: what was drawn is kept"
            ) from None

    def stop(self) -> None:
        """Free the cluster's resources."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()

    def _started(self, count: int) -> list[Any]:
        """At most `count` actors; the first call encodes the texts before."""
        if not self._actors:
            check_nodes()
            self._encode()
        actor: Any = ray.remote(Drawer).options(
            num_cpus=self._device.cpus,
            num_gpus=self._device.gpus,
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
        )
        settings = self._spec, self._cache, self._evaluation, self._device.kind, self._device.threads
        missing = min(count, self._most) - len(self._actors)
        self._actors += [actor.remote(*settings) for _ in range(missing)]
        return self._actors

    def _encode(self) -> None:
        count = max(1, min(self._most, -(-len(self._texts) // TEXTS_PER_SHARE)))
        device = self._device
        task: Any = ray.remote(encode).options(
            num_cpus=device.cpus, num_gpus=device.gpus, max_retries=RETRIES
        )
        get_results(
            [
                task.remote(
                    self._spec,
                    Share(self._texts[first::count], ()),
                    self._cache,
                    device.kind,
                    device.threads,
                    check=first == 0,
                )
                for first in range(count)
            ]
        )


def plan_drawing(nodes: Sequence[NodeResources], weights: int) -> tuple[EncodingDevice, int]:
    """The resources of one actor, and how many actors the nodes have room for.

    Args:
        weights: Bytes of the transformer's weights on a CPU.

    Raises:
        UserError: No node offers a GPU or a CPU.
    """
    if gpus := int(sum(node.get("GPU", 0) for node in nodes)):
        return EncodingDevice("cuda", cpus=1.0, gpus=1.0, threads=1), gpus
    offering = [node for node in nodes if node.get("CPU", 0) >= 1]
    if not offering:
        raise UserError("no node of the cluster offers a CPU; add a node with --num-cpus of at least 1")
    cpus = int(max(node["CPU"] for node in offering))
    memory = min(node.get("memory", 0.0) for node in offering)
    shares = max(1, min(cpus, int(memory * _WEIGHTS_SHARE / weights)))
    each = max(1, cpus // shares)
    room = sum(int(node["CPU"] // each) for node in offering)
    return EncodingDevice("cpu", cpus=float(each), gpus=0.0, threads=each), max(1, room)
