#!/usr/bin/env bash
# The whole flow on the sample corpus, on one GPU or, without one, on two CPU processes:
#
#     bash launch/quickstart.sh
#
# It leaves runs/quickstart/{tokenizer,corpus,teacher,student} and
# export/quickstart-{teacher,student}, below the folder OUT (default: this checkout). A stage that
# is done is not done again. Arguments override keys of both training recipes:
#
#     OUT=/tmp/trial bash launch/quickstart.sh train.steps=60 'train.phases=[]'
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/setup_venv.sh

runs="${OUT:-.}/runs/quickstart"
exports="${OUT:-.}/export"
folders=("corpus.path=$runs/corpus" "tokenizer.path=$runs/tokenizer")
overrides=("$@")
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

# The launcher is silent, so that an error is the one sentence of the run. It exits 0 when it was
# stopped from outside: only the state of the run tells whether it is done.
train() {
    local run="$1" code=0
    shift
    show deepspeed --log_level critical "${processes[@]}" --master_port "$(free_port)" "$@" \
        "run.path=$run" "${folders[@]}" "${precision[@]}" "${overrides[@]}" || code=$?
    [[ "$code" != 2 ]] || exit 2
    grep -q '"state": *"done"' "$run/status.json" 2> /dev/null && return
    if [[ "$code" -gt 128 ]]; then
        echo "error: a process of $run was killed (exit code $code), often for want of memory: free" \
            "some, and run this command again to resume." >&2
    else
        echo "error: $run is not finished (exit code $code): run this command again to resume." >&2
    fi
    exit 1
}

free_port() {
    python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

gpu_precision() {
    python -c 'import torch
if torch.cuda.is_available():
    print("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32")'
}

gpu="$(gpu_precision)"
if [[ -n "$gpu" ]]; then
    # One GPU is plenty for the sample; the launcher takes what this variable leaves visible.
    export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0}"
    export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES%%,*}"
    processes=()
    # Muon does not work in fp16; older GPUs compute in fp32, as the recipes say.
    precision=()
    if [[ "$gpu" == bf16 ]]; then
        precision=("train.precision=bf16" "deepspeed.config=ds_configs/zero1_bf16.json")
    fi
else
    export DS_ACCELERATOR=cpu
    # Muon's update would be compiled, which takes a C++ compiler and longer than it saves here.
    export TORCH_COMPILE_DISABLE=1
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((($(nproc) + 1) / 2))}"
    processes=(--num_accelerators 2)
    precision=()
fi

stage "corpus" show python launch/prepare_data.py \
    --config launch/recipes/quickstart_corpus.yaml "${folders[@]}"
stage "teacher" train "$runs/teacher" \
    launch/train_teacher.py --config launch/recipes/quickstart_teacher.yaml
stage "student" train "$runs/student" \
    launch/distill_student.py --config launch/recipes/quickstart_student.yaml \
    "teacher.path=$runs/teacher"
stage "publish the teacher" \
    show python launch/publish_student.py "$runs/teacher" "$exports/quickstart-teacher"
stage "publish the student" \
    show python launch/publish_student.py "$runs/student" "$exports/quickstart-student"
stage "compare" \
    show python launch/compare.py "$exports/quickstart-teacher" "$exports/quickstart-student" \
    --corpus "$runs/corpus" --pairs none

cat << TEXT

Done in $SECONDS s. The student is a plain Hugging Face folder:

    AutoModel.from_pretrained("$exports/quickstart-student")

What next?
    source $VENV/bin/activate
    tensorboard --logdir $runs                                  # the curves, in a browser
    python launch/plot.py $runs/teacher $runs/student           # the curves, as a picture
    python launch/prepare_data.py --config launch/recipes/corpus_en.yaml input.path=YOUR_TEXT
    sbatch --nodes 4 launch/slurm/train.sbatch runs/teacher \\
        launch/train_teacher.py --config launch/recipes/teacher_base.yaml   # on a cluster
TEXT
