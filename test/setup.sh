#!/bin/bash
# setup.sh demo|test: installs the host programs that csikit's demo and tests use,
# where that can be done without asking: as root, on Debian. Elsewhere it names
# what is missing, and the tests that need it say so.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

declare -A package=(
	[mkfs.ext4]=e2fsprogs [e2fsck]=e2fsprogs [resize2fs]=e2fsprogs
	[mkfs.xfs]=xfsprogs [xfs_growfs]=xfsprogs
)
# The tests also want a device of every kind that csikit must know, to see that
# it is not taken for a blank one.
[ "${1:-test}" = demo ] || package+=(
	[gcc]=gcc [mkfs.btrfs]=btrfs-progs [strace]=strace [unshare]=util-linux [mkfs.cramfs]=util-linux-extra
	[mkfs.vfat]=dosfstools [mkfs.ntfs]=ntfs-3g [mkfs.exfat]=exfatprogs [mkfs.f2fs]=f2fs-tools [mkfs.nilfs2]=nilfs-tools
	[mkfs.jfs]=jfsutils [mkreiserfs]=reiserfsprogs [mkfs.ocfs2]=ocfs2-tools [mkfs.gfs2]=gfs2-utils [mkudffs]=udftools
	[mksquashfs]=squashfs-tools [squashfuse]=squashfuse [mkfs.erofs]=erofs-utils [genisoimage]=genisoimage
	[sfdisk]=fdisk [sgdisk]=gdisk [cryptsetup]=cryptsetup-bin [mdadm]=mdadm [pvcreate]=lvm2 [make-bcache]=bcache-tools [drbdmeta]=drbd-utils
)
# For idempotency/etcdlock: 24 MB installed. The tests start it themselves.
[ "${1:-test}" = demo ] || package+=([etcd]=etcd-server)
missing=() packages=()
# Some mkfs read it, and a minimal Debian leaves it out.
[ "${1:-test}" = demo ] || [ -e /etc/mtab ] || ln -s ../proc/self/mounts /etc/mtab 2>/dev/null || true
# The race detector is C: it needs the C library's headers beside the compiler.
if [ "${1:-test}" != demo ] && [ ! -e /usr/include/stdlib.h ]; then missing+=(stdlib.h) packages+=(libc6-dev); fi
for tool in "${!package[@]}"; do
	command -v "$tool" >/dev/null || { missing+=("$tool"); packages+=("${package[$tool]}"); }
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "setup: not installed here: ${missing[*]}" >&2
	exit 0
fi
mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A new package's service must not start on the developer's machine.
install() { DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "${packages[@]}"; }
echo "setup: installing ${packages[*]}"
{ install || { apt-get update -q && install; }; } >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
