#!/bin/bash
# Installs the host programs that csikit's demo and tests use, where that can be
# done without asking: as root, on Debian. Elsewhere it names what is missing.
set -euo pipefail

declare -A package=(
	[mkfs.ext4]=e2fsprogs [resize2fs]=e2fsprogs [mkfs.xfs]=xfsprogs [xfs_growfs]=xfsprogs
	[mkfs.btrfs]=btrfs-progs [strace]=strace [mkfs.vfat]=dosfstools [sfdisk]=fdisk
	[cryptsetup]=cryptsetup-bin [pvcreate]=lvm2 [mkswap]=util-linux [unshare]=util-linux
)
PATH=$PATH:/usr/sbin:/sbin
missing=() packages=()
for tool in "${!package[@]}"; do
	command -v "$tool" >/dev/null || { missing+=("$tool"); packages+=("${package[$tool]}"); }
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "setup: not installed here: ${missing[*]}; tests that need them say so" >&2
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
install() { apt-get install -y -q --no-install-recommends "${packages[@]}"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "setup: installing ${packages[*]}"
{ install || { apt-get update -q && install; }; } >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
