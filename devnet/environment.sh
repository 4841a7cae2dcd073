# Sourced by devnet/up and tests/run: makes the virtual environment .venv in the checkout, once, and again when
# the dependencies change. Needs nothing but CPython 3.11 or 3.12 with venv. Sets `root` to the checkout.

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)

find_python() {
    for candidate in ${QENEX_PYTHON:-} python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
        then
            echo "$candidate"
            return 0
        fi
    done
    echo "qenex: needs CPython 3.11 or 3.12 with venv on the PATH (or named by QENEX_PYTHON)" >&2
    return 1
}

prepare_environment() {
    wanted=$(cksum <"$root/pyproject.toml"; cksum <"$root/devnet/constraints.txt"; echo "$root")
    if [ -x "$root/.venv/bin/qenex" ] && [ "$(cat "$root/.venv/prepared" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    python=$(find_python) || return 3
    echo "qenex: preparing the environment in $root/.venv (first run only)" >&2
    rm -f "$root/.venv/prepared"
    "$python" -m venv --clear "$root/.venv" || return 3
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$root/devnet/constraints.txt" --editable "$root[test]" || return 3
    echo "$wanted" >"$root/.venv/prepared"
}
