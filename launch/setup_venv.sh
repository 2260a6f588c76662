# shellcheck shell=bash
# Creates or reuses the virtual environment of this checkout, and activates it in this shell.
#
#     source launch/setup_venv.sh
#
# VENV names another folder than .venv, PYTHON another interpreter than python3. Nothing is
# installed when pyproject.toml and launch/constraints.txt are unchanged since the last time.
# Errors return 2 instead of exiting: an interactive shell that sources this file stays open.

_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$_root/.venv}"

_refuse() {
    echo "error: $1" >&2
    return 2
}

# The inputs of the environment; the checkout's path is one, because it is installed in place.
_environment_inputs() {
    echo "$_root"
    cat "$_root/pyproject.toml" "$_root/launch/constraints.txt"
}

_check_machine() {
    local python="$1"
    if ! command -v "$python" > /dev/null; then
        _refuse "There is no $python: install Python 3.11 or newer."
    elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        _refuse "$("$python" -V) is too old: install Python 3.11 or newer, or name one as PYTHON=..."
    elif ! command -v "${CXX:-c++}" > /dev/null; then
        _refuse "There is no C++ compiler: DeepSpeed builds with one (on Debian: apt-get install g++)."
    elif ! "$python" -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' 2> /dev/null; then
        _refuse "Python.h is missing: DeepSpeed builds with it (on Debian: apt-get install python3-dev)."
    fi
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
    "${pip[@]}" "$torch" || _refuse "pip could not install $torch: see its message above." || return
    # DeepSpeed compiles its operators when they are first used, never while it is installed.
    DS_BUILD_OPS=0 "${pip[@]}" -c "$_root/launch/constraints.txt" -e "${_root}[dev,plots]" \
        || _refuse "pip could not install Stillhouse: see its message above."
}

# A build that was killed leaves its lock file, and the next process that needs that operator would
# wait without end or message. A running build keeps its lock open, so an unopened one is stale.
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

_set_up() {
    local stamp="$VENV/.stillhouse-stamp" python="${PYTHON:-python3}"
    if [[ "$(cat "$stamp" 2> /dev/null)" != "$(_environment_inputs | cksum)" ]]; then
        # Chained, because `set -e` is off inside a function whose result is tested.
        _check_machine "$python" && _make_environment "$python" && _install \
            && _environment_inputs | cksum > "$stamp" || return 2
    fi
    _remove_stale_locks
}

_set_up || return 2

export VIRTUAL_ENV="$VENV"
export PATH="$VENV/bin:$PATH"
unset -f _refuse _environment_inputs _check_machine _make_environment _install _remove_stale_locks \
    _set_up
unset -v _root
