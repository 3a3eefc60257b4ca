from pathlib import Path

import pytest
import yaml

from graphcast_batch.config.messages import parse_config
from graphcast_batch.errors import ConfigError
from graphcast_batch.recipe import Phase, TrainingRecipe, load_recipe
from tests.training.made import content, recipe_in

ROOT = Path(__file__).parents[1]


def test_the_published_schedule_rises_to_its_peak_and_falls_to_nothing():
    phase = Phase(rollout=1, updates=300_000, peak=1e-3, warm_up=1000, last=0.0)

    rates = [phase.rate(update) for update in (0, 499, 999, 1000, 150_500, 299_999)]

    # Half-way between update 1000 and the last the cosine is 0.
    assert rates == pytest.approx([1e-6, 5e-4, 1e-3, 1e-3, 5e-4, 0], rel=1e-4, abs=1e-12)


def test_a_rate_without_a_last_one_stays_and_a_phase_may_have_one_update():
    assert {Phase(rollout=2, updates=9, peak=3e-7).rate(update) for update in range(9)} == {3e-7}
    assert Phase(rollout=2, updates=1, peak=3e-7, last=0.0).rate(0) == 3e-7


def test_updates_know_their_phase_and_what_is_left_after_them(tmp_path):
    recipe = recipe_in(tmp_path)

    assert recipe.updates == 10
    assert [(recipe.phase_of(n)[0].rollout, recipe.phase_of(n)[1]) for n in (0, 7, 8, 9)] == [
        *((1, 0), (1, 7)),
        *((2, 0), (2, 1)),
    ]
    assert [recipe.steps_after(n) for n in (0, 8, 9, 10)] == [12, 4, 2, 0]
    with pytest.raises(ValueError, match="10 updates has no update 10"):
        recipe.phase_of(10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": []}, "phases: .*at least 1"),
        ({"phases": [{"rollout": 1, "updates": 5, "peak": 0.1, "warm_up": 5}]}, "warm_up must be shorter than the 5"),
        ({"phases": [{"rollout": 1, "updates": 5, "peak": 0.1, "last": 0.2}]}, "last must be the peak 0.1 at most"),
        ({"phases": [{"rollout": 1, "updates": 5, "peak": float("inf")}]}, "peak"),
        ({"samples_per_call": 3}, "batch must be a multiple of samples_per_call, 3, but is 4"),
        ({"batch": 0}, "batch"),
        ({"average": 1.0}, "average"),
        ({"model__freze": ["*"]}, "model.freze: unknown key; did you mean freeze"),
        ({"model__statistics": None}, "model.statistics"),
    ],
)
def test_what_does_not_fit_is_named_by_its_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(content(folder="training", **changes), TrainingRecipe, origin="of a test")


def test_a_recipe_is_read_from_yaml_with_the_published_numbers_where_it_gives_none(tmp_path):
    made = content(folder=str(tmp_path / "training"))
    for key in ("batch", "samples_per_call"):
        del made[key]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(made))

    recipe = load_recipe(tmp_path / "recipe.yaml")

    # Lam et al. 2023, supplement 4.4.
    assert (recipe.batch, recipe.clip, recipe.weight_decay) == (32, 32, 0.1)
    assert recipe.folder == tmp_path / "training"


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "training").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_loads_and_opens_with_its_launch_line(path):
    load_recipe(path)

    assert path.read_text().startswith(f"# graphcast-batch finetune configs/training/{path.name}\n")
