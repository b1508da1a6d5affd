"""Named settings: weights by category, methods of the paper's tables."""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from twostage.config import Config, DefectConfig, LossConfig
from twostage.errors import ConfigError
from twostage.presets import CATEGORIES, CATEGORY_WEIGHTS, METHODS, Category, apply_category, apply_method, apply_preset


@pytest.mark.parametrize("category", CATEGORIES)
def test_weights_sum_to_one_and_have_the_papers_order(category: Category) -> None:
    alpha, beta, gamma = CATEGORY_WEIGHTS[category]
    assert alpha + beta + gamma == pytest.approx(1)
    # Fig. 4: structure counts most for carpet, leather and wood, luminance for tile, pill and hazelnut.
    assert max(alpha, beta, gamma) == (gamma if category in ("carpet", "leather", "wood") else alpha)
    assert beta < max(alpha, gamma)


def test_a_category_changes_the_weights_of_both_stages_and_nothing_else() -> None:
    config = Config(seed=3, defects=DefectConfig(max_defects=2))
    leather = apply_category(config, "leather")
    for stage in (leather.first_stage, leather.second_stage):
        assert stage.loss.weights == CATEGORY_WEIGHTS["leather"]
    stages = {
        name: replace(getattr(leather, name), loss=replace(getattr(leather, name).loss, weights=LossConfig().weights))
        for name in ("first_stage", "second_stage")
    }
    assert replace(leather, **stages) == config


@pytest.mark.parametrize("method", ["ssim+l1", "lpips+ssim", "aw-ssim"])
def test_one_stage_methods_train_as_long_on_normal_images_alone(method: str) -> None:
    config = Config()
    changed = apply_method(config, method)
    assert [stage.loss.name for stage in changed.stages] == [method]
    assert changed.stages[0].epochs == config.first_stage.epochs + config.second_stage.epochs
    assert not changed.stages[0].defective
    assert (changed.model, changed.scoring, changed.data) == (config.model, config.scoring, config.data)


def test_ae_ssim_has_no_skips_and_needs_no_lpips() -> None:
    changed = apply_method(Config(), "ae-ssim")
    assert changed.model.skips == "none"
    assert [stage.loss.name for stage in changed.stages] == ["ssim"]
    assert changed.scoring.map == "ssim"
    assert not changed.uses_lpips


def test_two_stage_is_the_configuration_as_it_is() -> None:
    config = Config(seed=5)
    assert apply_method(config, "two-stage") is config


def test_every_method_of_table_2_is_there_in_its_order() -> None:
    assert METHODS == ("ssim+l1", "lpips+ssim", "aw-ssim", "two-stage", "ae-ssim")
    assert set(METHODS) - {"two-stage", "ae-ssim"} <= set(get_args(LossConfig.__annotations__["name"]))


@pytest.mark.parametrize(("apply", "name"), [(apply_category, "glass"), (apply_method, "gan"), (apply_preset, "x")])
def test_unknown_names_are_refused_with_those_accepted(apply: Callable[[Config, str], Config], name: str) -> None:
    accepted = "hazelnut" if apply is not apply_method else "ae-ssim"
    with pytest.raises(ConfigError, match=f"{name!r}; accepted: .*{accepted}"):
        apply(Config(), name)


def test_a_preset_is_a_category_or_a_method() -> None:
    config = Config()
    assert apply_preset(config, "tile") == apply_category(config, "tile")
    assert apply_preset(config, "ae-ssim") == apply_method(config, "ae-ssim")
