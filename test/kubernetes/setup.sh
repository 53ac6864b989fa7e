#!/usr/bin/env bash
# Installs the host's part of a cluster, where that can be done without asking: as root, on Debian.
set -euo pipefail
declare -A package=([containerd]=containerd [ctr]=containerd [runc]=runc [busybox]=busybox-static [jq]=jq [ip]=iproute2 [pgrep]=procps [openssl]=openssl
  [mkfs.xfs]=xfsprogs [mkfs.ext4]=e2fsprogs [gcc]=gcc)
packages=(); for t in "${!package[@]}"; do command -v "$t" >/dev/null || packages+=("${package[$t]}"); done
[ -x /usr/lib/cni/bridge ] || packages+=(containernetworking-plugins)
[ ${#packages[@]} = 0 ] && exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "kubernetes: not installed here: ${packages[*]}" >&2; exit 0; }
echo "kubernetes: installing ${packages[*]}"
{ DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "${packages[@]}" ||
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "${packages[@]}"; }; } >/dev/null
