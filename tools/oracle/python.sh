# Sourced by tools/bench and tools/budget: sets `python` to one that has what $requirements lists (a file of tools/; the default is
# requirements-oracle.txt): $SQUINT_ORACLE_PYTHON, or one of our own, made here from nothing.
tools/setup
requirements=${requirements:-requirements-oracle.txt}
python=${SQUINT_ORACLE_PYTHON:-.tools/oracle/bin/python3}
if [ -z "${SQUINT_ORACLE_PYTHON:-}" ] && ! cat tools/requirements*.txt | cmp -s - ".tools/oracle/$requirements"; then
  echo "$0: installing the packages of tools/$requirements into .tools/oracle; llama.cpp is built, which takes minutes" >&2
  [ -x "$python" ] || python3 -m venv .tools/oracle
  # A compiler there is: Swift brings one.
  if ! command -v c++ >/dev/null; then export CC=clang CXX=clang++; fi
  CMAKE_ARGS="-DGGML_NATIVE=ON" "$python" -m pip install --quiet --disable-pip-version-check \
    --no-binary llama-cpp-python -r "tools/$requirements"
  # Installed whole, and of these versions.
  cat tools/requirements*.txt >".tools/oracle/$requirements"
  [ "$requirements" = requirements-bench.txt ] || cp ".tools/oracle/$requirements" .tools/oracle/requirements-bench.txt
fi
