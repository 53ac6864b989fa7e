#!/usr/bin/env bash
# all.sh: every flow, loopfile on this machine and, at the same time, lvm and nfs in the VM, whose kernel has one CPU. What the VM
# says comes after the rest; the last table has all drivers, and is looked at: a flow that did not run is a failure. (ONE=1: one
# after the other.)
set -euo pipefail
cd "$(dirname "$0")"
t='' && declare -A halves=() # processes
finish() {
  trap '' HUP INT QUIT TERM # a second one would leave what the first one lets go
  for p in "${!halves[@]}"; do kill "$p" 2>/dev/null || true; done
  for p in "${!halves[@]}"; do wait "$p" 2>/dev/null || true; done
  rm -rf "$t"
}
trap finish EXIT
trap 'exit 130' HUP INT QUIT TERM
t=$(mktemp -d "${TMPDIR:-/tmp}/csikit-kubernetes.XXXXXX")
mkdir "$t/out" # the VM can write there
export CSIKIT_REQUIRE=kubernetes
go test -c -o "$t/kubernetes.test" .
# In the background, both: bash hears a signal while it waits, and not while a program runs.
half() { exec env CSIKIT_KUBERNETES_TABLE="$t/out/${1:-host}" CSIKIT_KUBERNETES="$1" setpriv --pdeathsig TERM "$t/kubernetes.test" -test.v "${@:2}"; }
in_vm() { half vm -test.timeout=110m -test.run='^TestFlows$'; }
ends() { wait "$1" || rc=1; unset "halves[$1]"; }
rc=0 vm=''
[ -n "${ONE:-}" ] || { in_vm >"$t/vm.log" 2>&1 & vm=$! halves[$!]=1; }
half '' -test.timeout=90m -test.run='^(TestManifests|TestSmoke|TestFlows)$' & host=$! halves[$!]=1
ends "$host"
echo "kubernetes: lvm and nfs in the VM"
if [ -n "$vm" ]; then
  ends "$vm"
  cat "$t/vm.log"
else
  in_vm & vm=$! halves[$!]=1
  ends "$vm"
fi
CSIKIT_KUBERNETES=table "$t/kubernetes.test" "$t/out/host" "$t/out/vm" || rc=1
exit $rc
