"""Pre-train a BERT teacher on MLM and NSP, under DeepSpeed.

    deepspeed launch/train_teacher.py --config launch/recipes/teacher_base.yaml [key.path=value ...]

It makes the folder `run.path`: config.yaml, status.json, metrics.jsonl, tensorboard/ and
checkpoints/. The same command again continues an interrupted run, bit for bit.
"""

try:
    from data_prep.config.loader import describe_keys, load_recipe
except ImportError as error:
    raise SystemExit(f"{error}: install Stillhouse with `pip install -e .` first.") from error

from launch.cli import recipe_parser, run_rank
from pretrain.config.run import TeacherRecipe
from pretrain.data.setup import Inputs
from pretrain.distributed import Cluster
from pretrain.model import Bert, BertShape, initialise
from pretrain.train.run import execute
from pretrain.train.task import Prepared, PretrainingTask


def main() -> None:
    """Read the recipe and train."""
    keys = f"keys of a recipe, with their defaults:\n{describe_keys(TeacherRecipe)}"
    arguments = recipe_parser(__doc__, keys).parse_intermixed_args()
    recipe = load_recipe(TeacherRecipe, arguments.config, arguments.overrides)

    def prepare(inputs: Inputs, cluster: Cluster) -> Prepared:
        model = Bert(teacher_shape(recipe, inputs))
        initialise(model, recipe.train.seed)
        return Prepared(model=model, task=PretrainingTask())

    execute(recipe, prepare)


def teacher_shape(recipe: TeacherRecipe, inputs: Inputs) -> BertShape:
    """Return the shape that the recipe and the tokenizer give together."""
    return BertShape(
        **recipe.model.model_dump(exclude={"shape"}),
        vocab_size=inputs.tokenizer.vocab_size,
        pad_id=inputs.tokenizer.pad_id,
        # Single segments ask nothing of a pair: that head would get no gradient.
        next_sentence=recipe.samples.pairs != "none",
    )


if __name__ == "__main__":
    run_rank(main)
