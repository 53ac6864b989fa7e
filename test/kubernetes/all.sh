#!/usr/bin/env bash
# all.sh [go test's flags]: every flow, loopfile on this machine and, at the same time, lvm and nfs in the VM, whose kernel has one
# CPU. What the VM says comes after the rest; the last table has all drivers. (ONE=1: one after the other.)
set -euo pipefail
cd "$(dirname "$0")"
t=$(mktemp -d "${TMPDIR:-/tmp}/csikit-kubernetes.XXXXXX") vm=
finish() {
  [ -z "$vm" ] || { kill "$vm" 2>/dev/null && wait "$vm"; } || true
  rm -rf "$t"
}
trap finish EXIT
trap 'exit 130' INT TERM
mkdir "$t/out" # the VM can write there
export CSIKIT_REQUIRE=kubernetes CSIKIT_KUBERNETES_TABLE=$t/out/table
go test -c -o "$t/kubernetes.test" .
in_vm() { CSIKIT_KUBERNETES=vm exec "$t/kubernetes.test" -test.v -test.timeout=110m -test.run='^TestFlows$'; }
rc=0
[ -n "${ONE:-}" ] || { in_vm >"$t/vm.log" 2>&1 & vm=$!; }
"$t/kubernetes.test" -test.v -test.timeout=90m -test.run='^(TestManifests|TestSmoke|TestFlows)$' || rc=1
if [ -n "$vm" ]; then
  echo "kubernetes: lvm and nfs in the VM"
  wait "$vm" || rc=1
  vm=
  cat "$t/vm.log"
else
  (in_vm) || rc=1
fi
exit $rc
