#!/usr/bin/env bash
# Tests with the oldest versions of torch, torchvision and PyTorch Geometric that a machine may have, in an environment of
# its own, which needs about 7 GB and is deleted afterwards. Its torch is the one that pip installs, which on Linux has CUDA;
# the tests run on the CPU.
#
#   tools/old_versions.sh [TESTS]        by default what depends on torch most; any words of pytest
#   OLD_VERSIONS="torch==2.12.0 torchvision==0.27.0" tools/old_versions.sh       other versions
#   OLD_ENVIRONMENT=folder tools/old_versions.sh       the environment of this folder; it is made if need be, and kept
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
versions=${OLD_VERSIONS:-torch==2.11.0 torchvision==0.26.0 torch_geometric==2.8.0 accelerate==1.15.0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
environment=${OLD_ENVIRONMENT:-$work/environment}
if [ ! -x "$environment/bin/pytest" ]; then
  # From a copy, since building a package leaves files beside its sources.
  mkdir "$work/clone"
  git -C "$top" archive HEAD | tar -x -C "$work/clone"
  "${PYTHON:-python3}" -m venv "$environment"
  # shellcheck disable=SC2086
  "$environment/bin/pip" install -q $versions "$work/clone[test]"
fi
export PYTHONPATH="$top${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} CUDA_VISIBLE_DEVICES=
cd "$top"
"$environment/bin/python" -c 'import torch, torchvision, torch_geometric as g
print("torch", torch.__version__, " torchvision", torchvision.__version__, " torch_geometric", g.__version__)'
if [ $# -eq 0 ]; then
  set -- tests/core tests/layers tests/nn tests/encoders tests/objectives tests/regularizers tests/optim tests/training tests/distributed
fi
"$environment/bin/python" -m pytest "$@"
