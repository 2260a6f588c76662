"""Pre-train a BERT teacher on MLM and NSP, under DeepSpeed, from scratch or from `model.start`.

    deepspeed launch/train_teacher.py --config launch/recipes/teacher_base.yaml [key.path=value ...]

It makes the folder `run.path`: config.yaml, status.json, metrics.jsonl, tensorboard/ and
checkpoints/. The same command again continues an interrupted run, bit for bit.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where it is not installed

from launch.command_line.packages import packages_required

with packages_required():
    from launch.command_line.errors import run_rank
    from launch.command_line.recipe import read_recipe, recipe_parser
    from pretrain.config.run import TeacherRecipe
    from pretrain.data.setup import Inputs
    from pretrain.distributed import Cluster
    from pretrain.model import Bert, BertShape, initialise
    from pretrain.start.setup import continue_from_start
    from pretrain.train.run import execute
    from pretrain.train.run_directory import with_positions_of_run
    from pretrain.train.task import Prepared, PretrainingTask

_COMMON_KEYS = (
    "run.path corpus.path tokenizer.path model.shape model.start train.steps train.seed "
    "train.batch_rows train.row_tokens train.micro_rows train.precision optim.lr "
    "checkpoint.every_steps checkpoint.keep log.every_steps deepspeed.config"
)


def main() -> None:
    """Read the recipe and train."""
    parser = recipe_parser(__doc__, TeacherRecipe, _COMMON_KEYS, "teacher_base.yaml")
    recipe = with_positions_of_run(read_recipe(TeacherRecipe, parser.parse_intermixed_args()))

    def prepare(inputs: Inputs, cluster: Cluster) -> Prepared:
        if recipe.model.start is not None:
            started = continue_from_start(recipe, inputs.tokenizer, cluster)
            return Prepared(
                model=started.model,
                task=PretrainingTask(),
                start_facts=started.facts,
                inherited_positions=started.facts.trained_positions,
            )
        model = Bert(teacher_shape(recipe, inputs))
        initialise(model, recipe.train.seed)
        return Prepared(model=model, task=PretrainingTask())

    execute(recipe, prepare)


def teacher_shape(recipe: TeacherRecipe, inputs: Inputs) -> BertShape:
    """Return the shape that a recipe without a start and the tokenizer give together."""
    positions = recipe.stated_positions
    assert positions is not None
    return BertShape(
        **recipe.model.model_dump(exclude={"shape", "start", "vocabulary", "positions"}),
        positions=positions,
        vocab_size=inputs.tokenizer.vocab_size,
        pad_id=inputs.tokenizer.pad_id,
        # Single segments ask nothing of a pair: that head would get no gradient.
        next_sentence=recipe.samples.pairs != "none",
    )


if __name__ == "__main__":
    run_rank(main)
