#!/usr/bin/env bash
# Runs Kubernetes' External.Storage suite in the cluster that is up, against the driver that is deployed.
#   e2e.sh DRIVER.yaml [ginkgo focus]
# PROCS parallel processes, LIST=1 only counts, SKIP regex, WITHOUT another one, TIMEOUT, OUT folder of e2e.log, junit.xml and summary.txt.
set -uo pipefail
. "$(dirname "$0")/env.sh"
M=$(readlink -f "$1"); FOCUS=${2:-External.Storage}
: "${SKIP=\\[Disruptive\\]|\\[Serial\\]|\\[Feature:Windows\\]}" "${OUT:=$CSIK8S_DIR/e2e}" "${PROCS:=4}" "${TIMEOUT:=60m}"
SKIP+=${WITHOUT:+${SKIP:+|}$WITHOUT}
mkdir -p "$OUT"; rm -f "$OUT"/junit.xml
if [ -n "${LIST:-}" ]; then
  e2e.test --kubeconfig "$KUBECONFIG" --provider local --storage.testdriver="$M" --ginkgo.dry-run --ginkgo.v --ginkgo.focus="$FOCUS" --ginkgo.skip="$SKIP" \
    --ginkgo.no-color > "$OUT/list.log" 2>&1
  grep -E "^Ran " "$OUT/list.log"; exit
fi
# shellcheck disable=SC2086
ginkgo run --procs="$PROCS" --focus="$FOCUS" --skip="$SKIP" --timeout="$TIMEOUT" --no-color --silence-skips --output-dir="$OUT" --junit-report=junit.xml \
  ${GINKGO_ARGS:-} "$CSIK8S_BIN/e2e.test" -- \
  --kubeconfig "$KUBECONFIG" --provider local --num-nodes 1 --node-os-distro custom --kubelet-root-dir "$KUBELET_DIR" \
  --delete-namespace-on-failure="${DELETE_NS:-true}" --dump-logs-on-failure="${DUMP:-false}" --storage.testdriver="$M" ${E2E_ARGS:-} > "$OUT/e2e.log" 2>&1
rc=$?; mv -f "$OUT"/*_junit.xml "$OUT/junit.xml" 2>/dev/null
{ grep -E "^Ran |^(SUCCESS|FAIL)!" "$OUT/e2e.log" | tail -2; grep -E "^\s*\[(FAIL|TIMEDOUT|PANICKED|INTERRUPTED)\]" "$OUT/e2e.log" | sort -u; } | tee "$OUT/summary.txt"
exit $rc
