# Sourced: sets $python to an interpreter that Edwin runs on, or says what to install.
python=
for candidate in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    {
        echo "Edwin Gateway needs Python 3.11 or newer; found: $(python3 --version 2>&1 || true)"
        echo "Install it:  apt-get install python3 python3-venv   (Debian, Ubuntu)"
        echo "             dnf install python3.12                 (Fedora, RHEL)"
        echo "             brew install python                    (macOS)"
        echo "or name one: PYTHON=/path/to/python3.11 $0"
    } >&2
    exit 1
fi
