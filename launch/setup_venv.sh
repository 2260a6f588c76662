# Makes or reuses the virtual environment of this checkout, and activates it.
#
#     source launch/setup_venv.sh
#
# VENV names another folder than .venv, PYTHON another interpreter than python3. Nothing is
# installed when pyproject.toml and launch/constraints.txt are those of the last time.

_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$_root/.venv}"

_refuse() {
    echo "error: $1" >&2
    exit 2
}

# What the environment was made from; the checkout's own path, because it is installed in place.
_recipe_of_environment() {
    echo "$_root"
    cat "$_root/pyproject.toml" "$_root/launch/constraints.txt"
}

_check_machine() {
    local python="$1"
    command -v "$python" > /dev/null || _refuse "There is no $python: install Python 3.10 or newer."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
        || _refuse "$("$python" -V) is too old: install Python 3.10 or newer, or name one as PYTHON=..."
    command -v "${CXX:-c++}" > /dev/null \
        || _refuse "There is no C++ compiler: DeepSpeed builds with one (on Debian: apt-get install g++)."
    "$python" -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' 2> /dev/null \
        || _refuse "Python.h is missing: DeepSpeed builds with it (on Debian: apt-get install python3-dev)."
}

_make_environment() {
    [[ -x "$VENV/bin/python" ]] && return
    echo "Making $VENV ..."
    "$1" -m venv "$VENV" \
        || _refuse "$1 could not make $VENV (on Debian: apt-get install python3-venv)."
}

_install() {
    local pip=("$VENV/bin/python" -m pip --disable-pip-version-check --quiet install)
    local torch
    torch="$(grep '^torch==' "$_root/launch/constraints.txt")"
    echo "Installing $torch, then everything else (some minutes the first time) ..."
    # First and by its exact version, so that nothing below can bring another build of it.
    "${pip[@]}" "$torch" || _refuse "pip could not install $torch: see its message above."
    # DeepSpeed compiles its operators when they are first used, never while it is installed.
    DS_BUILD_OPS=0 "${pip[@]}" -c "$_root/launch/constraints.txt" -e "$_root[dev,plots]" \
        || _refuse "pip could not install Stillhouse: see its message above."
}

# A build that was killed leaves its lock behind, and whoever needs that operator next waits for
# ever without a word. A living build keeps its lock open, so one that nobody holds is stale.
_remove_stale_locks() {
    local cache="${TORCH_EXTENSIONS_DIR:-$HOME/.cache/torch_extensions}" lock
    [[ -d "$cache" && -d /proc/self/fd ]] || return 0
    find "$cache" -maxdepth 3 -name lock -type f | while read -r lock; do
        if [[ -z "$(find /proc/[0-9]*/fd -lname "$(realpath "$lock")" 2> /dev/null)" ]]; then
            echo "Removing $lock: a build that was killed left it, and it would block the next one." >&2
            rm -f "$lock"
        fi
    done
}

_stamp="$VENV/.stillhouse-stamp"
if [[ "$(cat "$_stamp" 2> /dev/null)" != "$(_recipe_of_environment | cksum)" ]]; then
    _check_machine "${PYTHON:-python3}"
    _make_environment "${PYTHON:-python3}"
    _install
    _recipe_of_environment | cksum > "$_stamp"
fi
_remove_stale_locks

export VIRTUAL_ENV="$VENV"
export PATH="$VENV/bin:$PATH"
