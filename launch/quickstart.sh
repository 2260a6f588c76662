#!/usr/bin/env bash
# The whole flow on the sample corpus, on one GPU or, without one, on two CPU processes:
#
#     bash launch/quickstart.sh
#
# It leaves runs/quickstart/{tokenizer,corpus,teacher,student} and
# export/quickstart-{teacher,student}. A stage that is done is not done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup_venv.sh

runs=runs/quickstart
export TOKENIZERS_PARALLELISM=false

stage() {
    local title="$1" begin="$SECONDS"
    shift
    printf '\n== %s\n' "$title"
    "$@"
    printf '== %s: %d s\n' "$title" "$((SECONDS - begin))"
}

show() {
    printf '$ %s\n' "$*"
    "$@"
}

# The launcher exits 0 when it was stopped from outside, so only the run itself knows its end.
train() {
    local run="$1"
    shift
    show deepspeed --quiet "${processes[@]}" --master_port "$(free_port)" "$@" "${precision[@]}"
    grep -q '"state": *"done"' "$run/status.json" 2> /dev/null && return
    echo "error: $run is not finished: run this command again, and it goes on from there." >&2
    exit 1
}

free_port() {
    python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

gpu_precision() {
    python -c 'import torch
if torch.cuda.is_available():
    print("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16")'
}

gpu="$(gpu_precision)"
if [[ -n "$gpu" ]]; then
    # One GPU is plenty for the sample; the launcher takes what this variable leaves visible.
    export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0}"
    export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES%%,*}"
    processes=()
    precision=("train.precision=$gpu" "deepspeed.config=ds_configs/zero1_$gpu.json")
else
    export DS_ACCELERATOR=cpu
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((($(nproc) + 1) / 2))}"
    processes=(--num_accelerators 2)
    precision=()
fi

stage "corpus" show python launch/prepare_data.py --config launch/recipes/quickstart_corpus.yaml
stage "teacher" train "$runs/teacher" \
    launch/train_teacher.py --config launch/recipes/quickstart_teacher.yaml
stage "student" train "$runs/student" \
    launch/distill_student.py --config launch/recipes/quickstart_student.yaml \
    "teacher.path=$runs/teacher"
stage "publish the teacher" \
    show python launch/publish_student.py "$runs/teacher" export/quickstart-teacher
stage "publish the student" \
    show python launch/publish_student.py "$runs/student" export/quickstart-student
stage "compare" \
    show python launch/compare.py export/quickstart-teacher export/quickstart-student --corpus "$runs/corpus"

cat << TEXT

Done in $SECONDS s. The student is a plain Hugging Face folder:

    AutoModel.from_pretrained("export/quickstart-student")

What next?
    source $VENV/bin/activate
    tensorboard --logdir $runs                 # the curves, in a browser
    python launch/plot.py $runs/teacher $runs/student
    python launch/prepare_data.py --config launch/recipes/corpus_en.yaml input.path=YOUR_TEXT
    python launch/submit.py --help             # the same on a SLURM cluster
TEXT
