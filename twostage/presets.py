"""Named settings: the weights of AW-SSIM for the paper's categories, and the methods of its tables."""

from dataclasses import replace
from typing import Literal, get_args

from twostage.config import Config, LossName, StageConfig
from twostage.errors import ConfigError

Category = Literal["tile", "wood", "leather", "carpet", "hazelnut", "pill"]
Method = Literal["ssim+l1", "lpips+ssim", "aw-ssim", "two-stage", "ae-ssim"]

CATEGORIES: tuple[Category, ...] = get_args(Category)
"""In the order of Table 1."""
METHODS: tuple[Method, ...] = get_args(Method)
"""The columns of Table 2 in its order, then the baseline of Table 1."""
TABLE_2: tuple[Method, ...] = METHODS[:4]

_STRUCTURE = (0.25, 0.25, 0.5)
_LUMINANCE = (0.5, 0.25, 0.25)
CATEGORY_WEIGHTS: dict[Category, tuple[float, float, float]] = {
    "tile": _LUMINANCE,
    "wood": _STRUCTURE,
    "leather": _STRUCTURE,
    "carpet": _STRUCTURE,
    "hazelnut": _LUMINANCE,
    "pill": _LUMINANCE,
}
"""alpha, beta, gamma. The paper (Fig. 4) says which is the highest, not how high. Other data: 1/3 each."""


def apply_category(config: Config, name: str) -> Config:
    """The configuration with the category's weights of luminance, contrast and structure in both stages.

    Raises:
        ConfigError: there is no such category.
    """
    if name not in CATEGORIES:
        raise ConfigError(f"category is {name!r}; accepted: {', '.join(CATEGORIES)}")
    weights = CATEGORY_WEIGHTS[name]
    first, second = (
        replace(stage, loss=replace(stage.loss, weights=weights)) for stage in (config.first_stage, config.second_stage)
    )
    return replace(config, first_stage=first, second_stage=second)


def apply_method(config: Config, name: str) -> Config:
    """The configuration with the training of a method.

    * ``two-stage``: as it is.
    * ``ssim+l1``, ``lpips+ssim``, ``aw-ssim``: the one-stage columns of Table 2. One stage with that loss, on normal
      images alone, for as many epochs as both stages have.
    * ``ae-ssim``: the baseline of Table 1. The same with the loss SSIM and no skips, scored by the SSIM map.
      Source: Bergmann et al. 2018, "Improving unsupervised defect segmentation by applying structural similarity to
      autoencoders".

    Raises:
        ConfigError: there is no such method.
    """
    if name not in METHODS:
        raise ConfigError(f"method is {name!r}; accepted: {', '.join(METHODS)}")
    if name == "two-stage":
        return config
    if name == "ae-ssim":
        model = replace(config.model, skips="none")
        scoring = replace(config.scoring, map="ssim", lpips=False)
        return _one_stage(replace(config, model=model, scoring=scoring), "ssim")
    return _one_stage(config, name)


def apply_preset(config: Config, name: str) -> Config:
    """:func:`apply_category` or :func:`apply_method`, whichever knows the name.

    Raises:
        ConfigError: neither does.
    """
    if name in CATEGORIES:
        return apply_category(config, name)
    if name in METHODS:
        return apply_method(config, name)
    raise ConfigError(f"preset is {name!r}; accepted: {', '.join((*CATEGORIES, *METHODS))}")


def _one_stage(config: Config, loss: LossName) -> Config:
    first, second = config.first_stage, config.second_stage
    only = StageConfig(
        epochs=first.epochs + second.epochs,
        loss=replace(first.loss, name=loss),
        defective=False,
        learning_rate=first.learning_rate,
    )
    return replace(config, first_stage=only, second_stage=replace(second, epochs=0))
