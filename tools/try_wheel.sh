#!/usr/bin/env bash
# Builds an sdist and from it a wheel, installs the wheel outside of the clone, and trains an example that it finds by name.
#
#   tools/try_wheel.sh                    in a fresh environment: all dependencies are downloaded
#   tools/try_wheel.sh --with PYTHON      beside the packages of this Python, which has all dependencies and `build`
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/source" "$work/elsewhere"
(cd "$top" && tar -c --exclude=./.git --exclude=./.venv --exclude=./build --exclude=./dist --exclude=./runs --exclude='./*.egg-info' .) | tar -x -C "$work/source"
python=${PYTHON:-python3}
if [ "${1:-}" = --with ]; then
  python=$2
  # --no-isolation: the building tools of that Python.
  (cd "$work/source" && "$python" -m build --no-isolation --outdir "$work/dist" > "$work/log" 2>&1) || { cat "$work/log"; exit 1; }
  "$python" -m venv "$work/environment"
  packages=$("$work/environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$packages/dependencies.pth"
  # --ignore-installed: an editable installation of this package may be beside it.
  "$work/environment/bin/pip" install -q --no-deps --ignore-installed "$work"/dist/*.whl
else
  "$python" -m venv "$work/environment"
  "$work/environment/bin/pip" install -q build
  (cd "$work/source" && "$work/environment/bin/python" -m build --outdir "$work/dist" > "$work/log" 2>&1) || { cat "$work/log"; exit 1; }
  "$work/environment/bin/pip" install -q "$work"/dist/*.whl
fi
ls "$work/dist"
unset PYTHONPATH
cd "$work/elsewhere"
program=("$work/environment/bin/python" -c 'import sys, sslcollapse; assert "environment" in sslcollapse.__file__, sslcollapse.__file__
from sslcollapse.cli import main; sys.exit(main())')
"${program[@]}" train quickstart train.steps=2 optim.warmup_steps=0 monitor.every=0 evaluate.public=None > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
ls runs/quickstart/*/seed0/result.json
"${program[@]}" train bgrl_werank_cora --dry-run > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
grep -m1 "run directory" "$work/log"
