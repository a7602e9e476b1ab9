"""How lanes divide machines: by GPU, or by memory and prompts where there are only CPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from corrector.base import resolve_base, transformer_bytes
from corrector.base.spec import Precision
from corrector.errors import UserError
from jobs.inputs.batch import BatchWork, check_batch
from jobs.lanes.plan import LaneDevice, LaneLimits, LanePlan, plan_lanes, weights_bytes
from jobs.lanes.provisioning import smallest
from tests.support.paths import EXAMPLES, PROJECT

EXAMPLE = EXAMPLES / "people.yaml"
GIB = 2**30
BASE = 21 * 2**20
"""About what the embedded base takes."""


# A driver starts lanes after it has planned them, `--plan` only prints, and these take seconds to import.
PLAN = """
import sys
from pathlib import Path
from rich.console import Console
from jobs.inputs.batch import check_batch
from jobs.lanes.plan import LaneLimits, inspect_device, plan_lanes, print_plan
work = check_batch(Path(sys.argv[1]), storage=Path(sys.argv[2]))
fine_tunes = [task.entry.hyperparameters for task in work.tasks]
plan_lanes(work, fine_tunes, [{"CPU": 2.0}], inspect_device(work.spec, "cpu"), LaneLimits())
print_plan(work, Console(), LaneLimits())
slow = {"diffusers", "transformers", "peft", "torch._dynamo", "torch._inductor", "scipy.stats", "mlflow", "ray"}
assert not slow & set(sys.modules), slow & set(sys.modules)
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> BatchWork:
    return check_batch(EXAMPLE, storage=tmp_path_factory.mktemp("runs"))


def planned(
    work: BatchWork,
    *,
    kind: str = "cpu",
    cores: int = 4,
    memory: int = 8 * GIB,
    prompts: int = 4,
    machines: int = 1,
    limits: LaneLimits | None = None,
) -> tuple[LanePlan, int]:
    """The plan for the example's first `prompts`, and its lanes on so many machines."""
    node = {"CPU": float(cores)} | ({"GPU": 1.0} if kind == "cuda" else {})
    cluster = [node] * machines
    device = LaneDevice(kind, memory, memory, rate=1e10, cores=cores)
    fine_tunes = [task.entry.hyperparameters for task in work.tasks[:prompts]]
    plan = plan_lanes(work, fine_tunes, cluster, device, limits or LaneLimits())
    return plan, plan.lanes_on(cluster)


def test_lanes_are_planned_for_gpus_that_an_autoscaler_brings(work: BatchWork) -> None:
    head = [{"CPU": 1.0}]
    plan, _ = planned(work, kind="cuda", machines=3, limits=LaneLimits(gpus=3))
    there, _ = planned(work, kind="cuda", machines=3)

    assert len(LaneLimits(gpus=3).reachable(head)) == 4
    assert LaneLimits(gpus=3).reachable([{"CPU": 8.0, "GPU": 4.0}]) == [{"CPU": 8.0, "GPU": 4.0}]
    assert plan.lanes_on(head) == there.lanes_on([{"CPU": 4.0, "GPU": 1.0}] * 3) == 3
    assert there.lanes_on(head) == 1


def test_a_lane_is_planned_for_one_node_and_not_for_the_cores_of_all(work: BatchWork) -> None:
    fine_tunes = [task.entry.hyperparameters for task in work.tasks[:2]]
    nodes = [{"CPU": 1.0}, {"CPU": 2.0}, {}]
    plan = plan_lanes(work, fine_tunes, nodes, LaneDevice("cpu", GIB, GIB, 1e10, cores=16), LaneLimits())
    assert plan.resources.cpus == 2.0
    assert plan.lanes_on(nodes) == 1


@pytest.mark.parametrize(
    ("kind", "limits", "message"),
    [
        ("cpu", LaneLimits(), "needs 1 CPU; its nodes have 0.5 CPU, 0 CPU; add a node"),
        ("cpu", LaneLimits(workers=2), "needs 2 workers, each with 1 CPU; .* lower --workers"),
        ("cuda", LaneLimits(), "needs 1 CPU and 1 GPU; its nodes have 0.5 CPU, 0 CPU"),
    ],
)
def test_a_cluster_that_is_too_small_for_a_lane_is_told_so(
    work: BatchWork, kind: str, limits: LaneLimits, message: str
) -> None:
    fine_tunes = [task.entry.hyperparameters for task in work.tasks]
    with pytest.raises(UserError, match=message):
        plan_lanes(work, fine_tunes, [{"CPU": 0.5}, {}], LaneDevice(kind, GIB, GIB, 1e10, cores=4), limits)


def test_of_several_types_of_gpu_the_smallest_is_planned_for_and_named() -> None:
    large, small = (LaneDevice("cuda", size * GIB, size * GIB, 1e14, cores=8) for size in (119, 19))
    assert smallest({"H200": large}) == (large, None)
    device, note = smallest({"H200": large, "L4": small})
    assert device == small
    assert note is not None
    assert "H200 (119 GiB for lanes), L4 (19 GiB for lanes): lanes are planned for L4" in note


def test_lanes_of_two_prompts_each_share_the_cores_of_a_machine(work: BatchWork) -> None:
    plan, lanes = planned(work)

    assert (lanes, plan.settings.slots) == (2, 2)
    assert (plan.resources.cpus, plan.resources.threads) == (2.0, 2)


def test_a_lane_that_is_alone_has_all_cores(work: BatchWork) -> None:
    for plan, lanes in (planned(work, prompts=2), planned(work, limits=LaneLimits(lanes=1))):
        assert lanes == 1
        assert (plan.resources.cpus, plan.resources.threads) == (4.0, 4)


def test_a_base_that_is_large_for_the_machine_is_loaded_once(work: BatchWork) -> None:
    plan, lanes = planned(work, memory=6 * BASE)

    assert lanes == 1
    assert plan.resources.threads == 4


def test_lanes_that_share_a_machine_share_its_memory(work: BatchWork) -> None:
    alone, _ = planned(work, memory=240 * 2**20, limits=LaneLimits(lanes=1))
    shared, lanes = planned(work, memory=240 * 2**20)

    assert lanes == 2
    assert 2 * shared.packs.memory_bytes <= 240 * 2**20
    assert shared.settings.images_at_once <= alone.settings.images_at_once
    with pytest.raises(UserError, match="memory"):
        planned(work, memory=BASE // 2)


def test_every_machine_has_its_lanes(work: BatchWork) -> None:
    plan, lanes = planned(work, machines=3)

    assert lanes == 6
    assert plan.resources.threads == 2


def test_a_gpu_is_one_lane_whatever_cores_there_are(work: BatchWork) -> None:
    plan, lanes = planned(work, kind="cuda", machines=2)

    assert lanes == 2
    assert (plan.resources.gpus, plan.resources.threads) == (1.0, 1)


def test_workers_of_a_lane_divide_its_cores(work: BatchWork) -> None:
    plan, lanes = planned(work, limits=LaneLimits(workers=2))

    assert lanes == 2
    assert (plan.resources.workers, plan.resources.cpus, plan.resources.threads) == (2, 1.0, 1)


def test_slots_of_a_machine_are_divided_among_its_lanes(work: BatchWork) -> None:
    plan, _ = planned(work, limits=LaneLimits(machine_slots=2))
    assert plan.settings.slots == 1

    plan, _ = planned(work, limits=LaneLimits(slots=2, machine_slots=2))
    assert plan.settings.slots == 2


def test_lanes_are_planned_without_diffusers(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PLAN, EXAMPLE, tmp_path], cwd=PROJECT, check=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_weights_bytes_are_those_of_the_configuration(small_sd35: Path, precision: Precision) -> None:
    for reference in ("embedded", str(small_sd35)):
        spec = resolve_base(reference, precision=precision)
        assert weights_bytes(spec, "cpu") == transformer_bytes(spec, "cpu")
