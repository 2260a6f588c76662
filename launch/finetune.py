r"""Fine-tune an encoder on a task, and its teacher by the same protocol.

    python launch/finetune.py --model export/student --teacher export/teacher \
        --task classification --train train.csv --test test.csv --text text --label label \
        --out runs/eval/news

Tables are .csv, .tsv, .txt, .jsonl or .parquet; tokens read CoNLL files, qa reads SQuAD's JSON.
It leaves results.json, predictions.jsonl, pictures, tensorboard/, and the model in model/.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where it is not installed

from launch.command_line.packages import packages_required

with packages_required():
    from launch.command_line.errors import run_command
    from launch.downstream.command import finetune_parser, read_options


def main() -> None:
    """Fine-tune, and print the table."""
    options = read_options(finetune_parser(__doc__).parse_args())
    # Imported here so that --help and wrong switches are answered at once.
    from launch.downstream.run import run_finetuning

    run_finetuning(options)


if __name__ == "__main__":
    run_command(main)
