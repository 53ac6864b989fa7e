#!/usr/bin/env bash
# kubelet.sh start|stop: the cluster's kubelet, as up.sh configured it
set -euo pipefail
. "$(dirname "$0")/env.sh"
case $1 in
stop) stop kubelet ;;
start) start kubelet kubelet --config "$CSIK8S_DIR/kubelet.yaml" --kubeconfig "$CSIK8S_DIR/kubelet.kubeconfig" --root-dir "$KUBELET_DIR" \
  --hostname-override "$NODE_NAME" --node-ip "$NODE_IP" --cert-dir "$CSIK8S_DIR/pki/kubelet" --v="${KUBELET_V:-2}" ;;
esac
