"""The recipes at the scale of a GPU: their models, their tokens and what they leave as it is."""

import pytest

from benchmarks.experiments import gpu_recipe, recipe_names, recipe_of
from flows.recipe import merged, open_recipe
from trainer.config import Train
from trainer.model.model import preset_sizes


def configs_of(recipe):
    """Return the config of each variant that does not follow another."""
    return {
        name: Train.model_validate({**merged(recipe.run, settings), "out": "out", "target": "t"})
        for name, settings in recipe.variants.items()
        if "follows" not in settings
    }


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_at_the_scale_of_a_gpu(name):
    recipe = open_recipe(recipe_of(name))
    scaled = gpu_recipe(recipe)
    assert scaled.out != recipe.out
    assert scaled.variants.keys() == recipe.variants.keys()
    small, large = configs_of(recipe), configs_of(scaled)
    for variant, config in large.items():
        layers, hidden, heads = preset_sizes(config.model)
        assert hidden == 64 * heads
        assert 2e6 < 12 * layers * hidden**2 < 3e7
        tokens = [c.training.draws * c.training.sequence_tokens for c in (small[variant], config)]
        assert tokens[1] == 128 * tokens[0]
        assert config.training.precision == "bfloat16"
        assert config.mixture.mixer == small[variant].mixture.mixer
