# Sourced by tools/test and tools/run_example.

# Print a Python from 3.10 to 3.13 that can make virtual environments; PYTHON=/path/to/python is tried first.
find_python() {
    local candidate
    # constraints.txt was recorded on 3.11, so that comes next.
    for candidate in "${PYTHON:-}" python3.11 python3 python3.12 python3.13 python3.10; do
        if [[ -n $candidate ]] && "$candidate" -c \
            'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "$0: no Python 3.10 to 3.13 found; install one, or set PYTHON to its path" >&2
    return 1
}
