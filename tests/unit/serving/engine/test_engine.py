"""The engine draws what it is asked to, the same in any company, with any adapter that it can have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from corrector.adapters import layout_of
from corrector.base.weights import transformer_skeleton
from corrector.errors import UserError
from serving.adapter_identity import AdapterIdentity
from serving.engine.engine import Engine
from serving.engine.request import AdapterUnavailable
from serving.settings import EngineSettings
from tests.support.engine_requests import PROMPTS, SPEC, draw, request, settings
from tests.support.served_adapters import FolderSource, write_adapter
from tests.support.waiting import wait_until


def test_the_base_draws_what_the_pipeline_draws(engine: Engine) -> None:
    (drawn,) = draw(
        engine,
        request(
            PROMPTS[1],
            seed=7,
            guidance_scale=4.0,
            negative_prompt="a cat",
            num_inference_steps=4,
            height=64,
            width=64,
        ),
    )
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        SPEC.folder, local_files_only=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPTS[1],
        negative_prompt="a cat",
        guidance_scale=4.0,
        num_inference_steps=4,
        height=64,
        width=64,
        max_sequence_length=SPEC.max_sequence_length,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    ).images[0]
    assert drawn.adapter is None and drawn.pixels.shape == (64, 64, 3)
    assert np.abs(drawn.pixels.astype(float) - expected * 255).max() <= 1


def test_images_in_any_company_are_the_same_to_the_byte(
    engine: Engine, adapters: list[AdapterIdentity]
) -> None:
    """Other prompts, adapters, seeds, steps, guidance, users; at first one after the other, then all at once, twice."""
    wanted = [
        request(
            PROMPTS[number % 3],
            seed=number,
            num_inference_steps=2 + number % 3,
            guidance_scale=(1.0, 3.0)[number % 2],
            adapter=None if number % 5 == 0 else adapters[number % len(adapters)],
            user=f"user {number % 7}",
        )
        for number in range(16)
    ]
    alone = [draw(engine, one)[0].pixels for one in wanted]
    assert len({pixels.tobytes() for pixels in alone}) == 16
    for order in (wanted, wanted[::-1]):
        together = {one.id: drawn for one, drawn in zip(order, draw(engine, *order), strict=True)}
        different = [
            one.id
            for one, pixels in zip(wanted, alone, strict=True)
            if not np.array_equal(together[one.id].pixels, pixels)
        ]
        assert different == []
        assert [together[one.id].adapter for one in wanted] == [one.adapter for one in wanted]


def test_across_buckets_images_differ_by_rounding(
    engine: Engine, source: FolderSource, adapters: list[AdapterIdentity], tmp_path: Path
) -> None:
    wanted = [request(seed=seed, adapter=adapters[seed]) for seed in range(3)]
    small = Engine(SPEC, source, settings(tmp_path, row_buckets=(2, 3)))
    try:
        for one, other in zip(draw(engine, *wanted), draw(small, *wanted), strict=True):
            assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1
    finally:
        small.close()


def test_each_adapter_is_fetched_once_however_many_ask(
    engine: Engine, held_source: FolderSource, tmp_path: Path
) -> None:
    popular = write_adapter(tmp_path, "popular", seed=20)
    held_source.folders[popular] = tmp_path
    futures = [engine.submit(request(seed=seed, adapter=popular)) for seed in range(5)]
    base = engine.submit(request(seed=99))
    assert base.result(60).adapter is None  # nobody waits for another's adapter
    assert not any(future.done() for future in futures)
    before = engine.stats().adapter_loads
    held_source.available.set()
    assert all(future.result(60).adapter == popular for future in futures)
    assert held_source.fetched[popular] == 1 and engine.stats().adapter_loads == before + 1


def test_more_adapters_than_slots_take_each_other_s_places(
    engine: Engine, adapters: list[AdapterIdentity]
) -> None:
    before = engine.stats().adapter_loads
    first, again = (
        [drawn.pixels for drawn in draw(engine, *(request(seed=1, adapter=adapter) for adapter in adapters))]
        for _ in range(2)
    )
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert len({pixels.tobytes() for pixels in first}) == len(adapters)
    stats = engine.stats()
    slots = engine.settings.slots
    assert len(stats.resident) == slots < len(adapters)
    assert stats.adapter_loads - before >= 2 * (len(adapters) - slots)


def test_an_adapter_that_cannot_be_had_fails_its_own_requests_only(
    engine: Engine, source: FolderSource, adapters: list[AdapterIdentity], tmp_path: Path
) -> None:
    other_base = write_adapter(tmp_path / "other", "other-base", seed=3, base_revision="another")
    too_large = write_adapter(tmp_path / "large", "too-large", seed=4, rank=9)
    source.folders |= {other_base: tmp_path / "other", too_large: tmp_path / "large"}
    refused = {
        AdapterIdentity("nobody", "1", "0" * 64): "nobody@1: not found",
        other_base: "trained on base revision another",
        too_large: "rank 9",
    }
    futures = {adapter: engine.submit(request(adapter=adapter)) for adapter in refused}
    (fine,) = draw(engine, request(adapter=adapters[0]))
    assert fine.adapter == adapters[0]
    for adapter, why in refused.items():
        with pytest.raises(AdapterUnavailable, match=why):
            futures[adapter].result(60)


def test_previews_come_in_order_and_end_near_the_image(engine: Engine) -> None:
    shown: list[tuple[int, np.ndarray]] = []
    wanted = request(num_inference_steps=8, guidance_scale=4.0, previews=3)
    drawn = engine.submit(wanted, lambda number, pixels: shown.append((number, pixels))).result(60)
    assert [number for number, _ in shown] == [0, 1, 2]
    distances = [float(np.abs(pixels.astype(float) - drawn.pixels).mean()) for _, pixels in shown]
    assert distances[0] > distances[1] > distances[2] > 0


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps is 0; expected 1 to 100"),
        ({"num_inference_steps": 101}, "num_inference_steps is 101"),
        ({"height": 60}, "32 x 60 pixels"),
        ({"width": 4096}, "4096 x 32 pixels"),
        ({"seed": -1}, "seed is -1"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
    ],
)
def test_what_the_base_cannot_draw_is_refused_at_once(
    engine: Engine, changed: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        engine.submit(request(**changed))


def test_other_sizes_share_the_room(engine: Engine, adapters: list[AdapterIdentity]) -> None:
    wanted = [
        request(seed=seed, height=height, width=width, adapter=adapters[seed])
        for seed, (height, width) in enumerate([(64, 64), (32, 64), (64, 48), (32, 64)])
    ]
    together = draw(engine, *wanted)
    assert [drawn.pixels.shape[:2] for drawn in together] == [(one.height, one.width) for one in wanted]
    assert all(
        np.array_equal(draw(engine, one)[0].pixels, drawn.pixels)
        for one, drawn in zip(wanted, together, strict=True)
    )


def test_adapters_are_preloaded_as_far_as_there_is_room_before_anybody_asks(
    source: FolderSource, adapters: list[AdapterIdentity], tmp_path: Path
) -> None:
    """Five of six fit into host memory, four of these on the device."""
    chosen = settings(tmp_path)
    each = 4 * layout_of(transformer_skeleton(SPEC), chosen.rank).size
    engine = Engine(SPEC, source, chosen.model_copy(update={"adapter_cache_bytes": 5 * each + 1}))
    try:
        before = sum(source.fetched.values())
        engine.preload(adapters)
        wait_until(lambda: len(engine.stats().resident) == 4 and engine.stats().host_adapters == 5)
        draw(engine, request(adapter=engine.stats().resident[0]))
        assert engine.stats().adapter_loads == 4
        assert sum(source.fetched.values()) - before == 5
    finally:
        engine.close()


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="slots is 4, and 8 rows may each have an adapter"):
        EngineSettings(row_buckets=(8,), slots=4)
    with pytest.raises(ValueError, match="ascending"):
        EngineSettings(row_buckets=(8, 4), slots=8)
    with pytest.raises(ValueError, match="two rows"):
        EngineSettings(row_buckets=(1,), slots=8)
