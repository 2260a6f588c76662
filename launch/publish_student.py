"""Publish a run as a plain Hugging Face folder.

    python launch/publish_student.py runs/student export/student

It makes model.safetensors, config.json, the tokenizer and a model card; nothing pickled. Teachers
are published the same way.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where it is not installed

from launch.command_line.packages import packages_required

with packages_required():
    from data_prep.errors import UserError
    from launch.command_line.errors import run_command
    from launch.command_line.parser import CommandParser


def main() -> None:
    """Export a run, and push the folder with --push."""
    arguments = _parser().parse_args()
    if arguments.dry_run and not arguments.push:
        raise UserError("--dry-run shows what --push would do: give --push ORG/NAME as well.")
    # Imported here so that --help and wrong arguments are reported at once.
    from pretrain.export.huggingface import publish

    language = _choose_language(arguments.run, arguments.language)
    made = publish(
        arguments.run,
        arguments.export,
        arguments.license,
        language,
        repository=arguments.push,
        positions=arguments.positions,
    )
    print(f"{arguments.export} is {'published' if made else 'up to date'}:")
    for path in sorted(arguments.export.iterdir()):
        print(f"  {path.name:28} {path.stat().st_size / 2**20:8.2f} MiB")
    if arguments.push:
        _push(arguments.export, arguments.push, arguments.dry_run)


def _choose_language(run: Path, named: str | None) -> str:
    """Return the language of the card, after saying where it comes from."""
    from pretrain.export.card.languages import check_language, language_of_run
    from pretrain.model.loading import locate

    if named is not None:
        return check_language(named)
    facts = locate(run).facts
    language = language_of_run(facts, run) if facts else None
    if language is None:
        print("The card names no language: its corpus states none; name it with --language.")
        return ""
    print(f"The card names the language {language}, as the corpus does; --language names another.")
    return language


def _push(export: Path, repository: str, dry_run: bool) -> None:
    if dry_run:
        print(f"These files would go to the model repository {repository}; nothing was sent.")
        return
    from huggingface_hub import HfApi

    # The token comes from the hub's own login or environment; it never passes through here.
    hub = HfApi()
    hub.create_repo(repository, exist_ok=True)
    hub.upload_folder(repo_id=repository, folder_path=export)
    print(f"Pushed to {repository}.")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of a teacher or a student")
    parser.add_argument("export", type=Path, help="folder to make")
    parser.add_argument("--license", default="other", help="licence for the model card")
    parser.add_argument(
        "--language",
        metavar="CODES",
        help="ISO 639 codes for the model card, separated by commas; without it the corpus's",
    )
    parser.add_argument(
        "--positions", type=int, help="longest input, to cut off positions that were not trained"
    )
    parser.add_argument("--push", metavar="ORG/NAME", help="upload to this model repository")
    parser.add_argument("--dry-run", action="store_true", help="with --push: list, do not send")
    return parser


if __name__ == "__main__":
    run_command(main)
