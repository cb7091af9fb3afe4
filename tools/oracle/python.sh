# Sourced by tools/bench and tools/budget: sets `python` to one that has tools/requirements-oracle.txt, $SQUINT_ORACLE_PYTHON or
# one of our own.
tools/setup
python=${SQUINT_ORACLE_PYTHON:-.tools/oracle/bin/python3}
if [ ! -x "$python" ]; then
  for tool in cmake ninja; do
    command -v $tool >/dev/null || { echo "$0: please install cmake and ninja" >&2; exit 1; }
  done
  python3 -m venv .tools/oracle
  CMAKE_ARGS="-DGGML_NATIVE=ON" "$python" -m pip install --quiet --no-binary llama-cpp-python -r tools/requirements-oracle.txt
fi
