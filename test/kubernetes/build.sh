#!/usr/bin/env bash
# Builds every binary from Go modules (through the Go module proxy only) into $CSIK8S_BIN.
# usage: build.sh [all|missing|etcd|kube|sidecars|images|snapmd|e2e|agnhost|hostpath ...]  (all = etcd to snapmd)   NICE=10 JOBS=2
# About 20 CPU-minutes cold. "missing" builds of all that of which a program is not there yet, or is of another version.
set -euo pipefail
. "$(dirname "$0")/env.sh"
tag() { # the version that csikit manifests writes
  sed -n "s|.*\"registry.k8s.io/sig-storage/$1:\([^\"]*\)\".*|\1|p" "$CSIK8S_HERE/../../cmd/csikit/internal/manifests/sidecars.go"
}
: "${JOBS:=2}" "${NICE:=10}" "${ETCD_VERSION:=v3.6.8}"
: "${ATTACHER_VERSION:=$(tag csi-attacher)}" "${PROVISIONER_VERSION:=$(tag csi-provisioner)}" "${RESIZER_VERSION:=$(tag csi-resizer)}"
: "${SNAPSHOTTER_VERSION:=$(tag csi-snapshotter)}" "${SNAPMD_VERSION:=$(tag csi-snapshot-metadata)}"
mkdir -p "$CSIK8S_BIN" "$CSIK8S_SRC"
export GOFLAGS=-buildvcs=false
STATIC="-linkmode external -extldflags -static"
gob() { # NAME PKG [ldflags]
  local t; t=$(now)
  nice -n "$NICE" go build -p "$JOBS" -trimpath -ldflags "-s -w ${3:-}" -o "$CSIK8S_BIN/$1" "$2"
  echo "built $1 $(since "$t") $(du -m "$CSIK8S_BIN/$1" | cut -f1)MiB"
}
replaces() { # k8s.io/* staging modules as replaced in k8s.io/kubernetes' own go.mod
  local m
  m=$(cd /tmp && go mod download -json "k8s.io/kubernetes@$KUBE_VERSION" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  echo "replace ("; awk -v s="$STAGING_VERSION" '/^replace \(/{r=1;next} /^\)/{r=0} r&&/=>/{print "\t"$1" => "$1" "s}' "$m"; echo ")"
}
tidy() { # once for each go.mod and list of programs
  cat go.mod.new tools.go > base.new
  if ! cmp -s base.new base; then cp go.mod.new go.mod; rm -f go.sum; go mod tidy -e 2>&1 | grep -v downloading || true; mv base.new base; fi
}
mod_kube() {
  cd "$CSIK8S_SRC"; mkdir -p kube/e2e kube/pause; cd kube
  cp "$CSIK8S_HERE/_build/e2e/e2e_test.go" e2e/; cp "$CSIK8S_HERE/_build/pause/main.go" pause/
  { printf 'module kubebuild\n\ngo 1.26.0\n\ngodebug default=go1.26\n\nrequire k8s.io/kubernetes %s\n\n' "$KUBE_VERSION"; replaces; } > go.mod.new
  cat > tools.go <<'T'
//go:build tools

package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
T
  tidy
}
mod_sidecars() {
  cd "$CSIK8S_SRC"; mkdir -p sidecars/registrar; cd sidecars
  mkdir -p livenessprobe; cp "$CSIK8S_HERE/_build/registrar/main.go" registrar/; cp "$CSIK8S_HERE/_build/livenessprobe/main.go" livenessprobe/
  { cat <<T
module sidecarbuild

go 1.26.0

require (
	github.com/kubernetes-csi/external-attacher/v4 $ATTACHER_VERSION
	github.com/kubernetes-csi/external-provisioner/v6 $PROVISIONER_VERSION
	github.com/kubernetes-csi/external-resizer/v2 $RESIZER_VERSION
	github.com/kubernetes-csi/external-snapshotter/v8 $SNAPSHOTTER_VERSION
	github.com/kubernetes-csi/external-snapshotter/client/v8 ${SNAPSHOT_CLIENT_VERSION:-v8.7.0}
	k8s.io/kubelet $STAGING_VERSION
)

T
  replaces; } > go.mod.new
  cat > tools.go <<'T'
//go:build tools

package tools

import (
	_ "github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher"
	_ "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"
	_ "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer"
	_ "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter"
	_ "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller"
)
T
  tidy
}
do_etcd() {
  mkdir -p "$CSIK8S_SRC/etcd"; cd "$CSIK8S_SRC/etcd"
  printf 'module etcdbuild\n\ngo 1.26.0\n\nrequire go.etcd.io/etcd/server/v3 %s\n' "$ETCD_VERSION" > go.mod
  printf '//go:build tools\n\npackage tools\n\nimport _ "go.etcd.io/etcd/server/v3"\n' > tools.go
  go mod tidy 2>&1 | grep -v downloading || true
  gob etcd go.etcd.io/etcd/server/v3
}
do_kube() {
  mod_kube
  local v=k8s.io/component-base/version c
  for c in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do
    gob $c k8s.io/kubernetes/cmd/$c "-X $v.gitVersion=$KUBE_VERSION -X $v.gitMajor=1 -X $v.gitMinor=$(cut -d. -f2 <<<"$KUBE_VERSION") -X $v.gitTreeState=clean -X $v.buildDate=1970-01-01T00:00:00Z"
  done
}
do_sidecars() {
  mod_sidecars
  local g=github.com/kubernetes-csi
  # static through cgo, for images without a libc, and from the same cache as the rest
  gob csi-node-driver-registrar ./registrar "$STATIC"
  gob livenessprobe ./livenessprobe "$STATIC"
  gob csi-attacher $g/external-attacher/v4/cmd/csi-attacher "$STATIC"
  gob csi-provisioner $g/external-provisioner/v6/cmd/csi-provisioner "$STATIC"
  gob csi-resizer $g/external-resizer/v2/cmd/csi-resizer "$STATIC"
  gob csi-snapshotter $g/external-snapshotter/v8/cmd/csi-snapshotter "$STATIC"
  gob snapshot-controller $g/external-snapshotter/v8/cmd/snapshot-controller
  mkdir -p "$CSIK8S_BIN/crd"
  cp "$(go list -m -f '{{.Dir}}' $g/external-snapshotter/client/v8)"/config/crd/*.yaml "$CSIK8S_BIN/crd/"
  chmod -R u+w "$CSIK8S_BIN/crd"; rm -f "$CSIK8S_BIN/crd/kustomization.yaml"
}
built() { # NAME MODULE VERSION: there, and of that version
  go version -m "$CSIK8S_BIN/$1" 2>/dev/null | grep -P "\tmod\t\Q$2\E\t\Q$3\E\t" >/dev/null
}
built_sidecars() {
  local g=github.com/kubernetes-csi
  built csi-provisioner $g/external-provisioner/v6 "$PROVISIONER_VERSION" && built csi-attacher $g/external-attacher/v4 "$ATTACHER_VERSION" &&
    built csi-resizer $g/external-resizer/v2 "$RESIZER_VERSION" && built csi-snapshotter $g/external-snapshotter/v8 "$SNAPSHOTTER_VERSION" &&
    built snapshot-controller $g/external-snapshotter/v8 "$SNAPSHOTTER_VERSION"
}
same() { cmp -s "$CSIK8S_HERE/_build/$1/main.go" "$CSIK8S_SRC/sidecars/$1/main.go"; } # a stand-in, as it was built
do_snapmd() { # the module asks for a version of its client module that is not served, and takes it from its own tree
  cd "$CSIK8S_SRC"; mkdir -p snapmd/lister; cd snapmd; local g=github.com/kubernetes-csi/external-snapshot-metadata
  cp "$CSIK8S_HERE/_build/lister/main.go" lister/
  printf 'module snapmdbuild\n\ngo 1.26.0\n\nrequire %s %s\n\nreplace %s/client => %s/client %s\n' \
    $g "$SNAPMD_VERSION" $g $g "${SNAPMD_CLIENT_VERSION:-v1.0.0}" > go.mod.new
  printf '//go:build tools\n\npackage tools\n\nimport _ "%s/cmd/csi-snapshot-metadata"\n' $g > tools.go
  tidy
  CGO_ENABLED=0 gob snapshot-metadata-lister ./lister
  CGO_ENABLED=0 gob csi-snapshot-metadata $g/cmd/csi-snapshot-metadata
  mkdir -p "$CSIK8S_BIN/crd"; cp "$(go list -m -f '{{.Dir}}' $g/client)"/config/crd/*.yaml "$CSIK8S_BIN/crd/"; chmod -R u+w "$CSIK8S_BIN/crd"
}
do_hostpath() { # csi-driver-host-path, to compare with: its module is not served; HOSTPATH_SRC is a clone of it, bare or not
  local v=${HOSTPATH_VERSION:-v1.18.0} d=$CSIK8S_SRC/hostpath
  [ -n "${HOSTPATH_SRC:-}" ] || die "HOSTPATH_SRC: no clone of csi-driver-host-path"
  rm -rf "$d"; mkdir -p "$d"; git -C "$HOSTPATH_SRC" archive "$v" | tar -x -C "$d"; cd "$d"
  CGO_ENABLED=0 gob hostpathplugin ./cmd/hostpathplugin "-X main.version=$v"
}
do_images() { mod_kube; CGO_ENABLED=0 gob pause ./pause; }
do_agnhost() { mod_kube; gob agnhost k8s.io/kubernetes/test/images/agnhost "$STATIC"; } # static via cgo: reuses the cache of the kube build
do_e2e() {
  mod_kube; local t; t=$(now)
  nice -n "$NICE" go test -p "$JOBS" -trimpath -ldflags "-s -w" -c -o "$CSIK8S_BIN/e2e.test" ./e2e
  gob ginkgo github.com/onsi/ginkgo/v2/ginkgo
  echo "built e2e.test $(since "$t") $(du -m "$CSIK8S_BIN/e2e.test" | cut -f1)MiB"
}
[ $# -gt 0 ] || set -- all
for x in "$@"; do
  case $x in
    missing)
      built etcd go.etcd.io/etcd/server/v3 "$ETCD_VERSION" || do_etcd
      for c in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do built $c k8s.io/kubernetes "$KUBE_VERSION" || { do_kube; break; }; done
      { built_sidecars && [ -e "$CSIK8S_BIN/livenessprobe" ] && [ -d "$CSIK8S_BIN/crd" ] && same registrar && same livenessprobe; } || do_sidecars
      [ -e "$CSIK8S_BIN/pause" ] || do_images
      built csi-snapshot-metadata github.com/kubernetes-csi/external-snapshot-metadata "$SNAPMD_VERSION" && [ -e "$CSIK8S_BIN/snapshot-metadata-lister" ] && compgen -G "$CSIK8S_BIN/crd/cbt*" >/dev/null || do_snapmd ;;
    all) do_etcd; do_kube; do_sidecars; do_images; do_snapmd ;;
    etcd|kube|sidecars|snapmd|images|agnhost|e2e|hostpath) do_$x ;;
    *) die "unknown target $x" ;;
  esac
done
