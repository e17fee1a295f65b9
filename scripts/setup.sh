# Sourced by the scripts beside it: makes $ROOT/.venv with pinned packages and hwrnn itself (editable) and puts it
# first on PATH. A second run sees by a stamp that nothing changed and does nothing.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

hwrnn_python() {
    local python
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "hwrnn: Python must be 3.11 or newer, and none was found on PATH" >&2
    return 1
}

hwrnn_setup() {
    local python stamp due log
    python=$(hwrnn_python) || return 1
    stamp=$ROOT/.venv/hwrnn.stamp
    # The path belongs in: a virtual environment does not survive a move of its folder. Of pyproject.toml what tools of
    # development read does not, nor do comments.
    due=$({ echo "$ROOT"; sed -e '/^\[tool\.ruff\]/,$d' -e '/^ *#/d' "$ROOT/pyproject.toml"
        grep -v '^#' "$ROOT/scripts/requirements.txt"; } | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$due" ]; then
        echo "hwrnn: installing into $ROOT/.venv (once; takes a minute or two)" >&2
        log=$ROOT/.venv/hwrnn-install.log
        if ! "$python" -m venv --clear "$ROOT/.venv" >&2; then
            echo "hwrnn: python must be able to make virtual environments; on Debian run apt-get install python3-venv" >&2
            return 1
        fi
        if ! {
            # Wheels only: what builds a source archive would come without a hash.
            "$ROOT/.venv/bin/python" -m pip install --require-hashes --only-binary :all: \
                --requirement "$ROOT/scripts/requirements.txt" &&
            "$ROOT/.venv/bin/python" -m pip install --no-deps --no-build-isolation --editable "$ROOT"
        } </dev/null >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            echo "hwrnn: the installation failed; the lines above are the end of $log" >&2
            return 1
        fi
        echo "$due" >"$stamp"
    fi
    export PATH="$ROOT/.venv/bin:$PATH"
}

hwrnn_setup || exit 1
