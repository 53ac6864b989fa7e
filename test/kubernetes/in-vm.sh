#!/usr/bin/env bash
# in-vm.sh COMMAND...: in the VM of test/vm (run-in-vm.sh -d 16G -d 8G -d 8G -d 4G): makes of it a node for up.sh, with
# a volume group on two disks and an NFS server on one, and runs COMMAND. Nothing is taken back: the VM ends with it.
set -euo pipefail
[ -n "${IN_VM:-}" ] || { echo "in-vm.sh: this is not the VM" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
# Only what is needed is imported, for that takes seconds.
[ -n "${CSIKIT_E2E:-}" ] || export NO_AGNHOST=1 SHELL_IMAGES=
# The VM's root is a chroot: who enters a container's mount namespace, as kubectl exec does, would find himself below it.
nsenter --mount=/proc/1/ns/mnt sh -c 'cd /mnt/new && mkdir -p mnt/.old && pivot_root . mnt/.old && exec chroot . umount -l /mnt/.old'
export CSIK8S_WORK=/var/csik8s CSIK8S_DIR=/var/csik8s/state
mkdir -p "$CSIK8S_WORK"
# Containers lie on overlayfs, whose upper directories the VM's root, an overlay itself, cannot hold.
mkfs.ext4 -q /dev/ubdb; mount /dev/ubdb "$CSIK8S_WORK"; mkdir -p "$CSIK8S_DIR"
for d in /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers /var/lib/csi-{lvm,nfs}.csikit.dev; do
  mkdir -p "$d" "$CSIK8S_WORK$d"; mount --bind "$CSIK8S_WORK$d" "$d"; mount --make-rshared "$d"
done
for m in bridge veth overlay nfs dm-crypt; do modprobe "$m"; done
mkdir -p /dev/mqueue; mount -t mqueue mqueue /dev/mqueue
# kubelet does not start on a machine whose clock has no speed.
sed 's/^processor.*/&\ncpu MHz\t\t: 2000.000\nphysical id\t: 0\ncore id\t\t: 0/' /proc/cpuinfo >/run/cpuinfo; mount --bind /run/cpuinfo /proc/cpuinfo
# Extents of 1 MiB: a spec of External.Storage asks for a copy of what it made, in the size that it asked for.
vgcreate -q -s 1m --metadatasize 16m vg0 /dev/ubdc /dev/ubdd
cat >/etc/lvm/csikit.json <<'J'
[
  {"Name": "linear", "VG": "vg0"},
  {"Name": "thin", "VG": "vg0", "Profile": "thin", "ThinPool": "pool0", "PoolSize": 4294967296, "Overcommit": 4}
]
J
mount --bind /srv /srv; mount --make-rshared /srv # the export is mounted below it
"$here/../vm/nfsd.sh" setup /dev/ubde
echo '[{"Name": "main", "Server": "10.88.0.1", "Export": "/", "LocalDir": "/srv/export"}]' >/srv/shares.json
rc=0; "$@" || rc=$?
[ -z "${CSIKIT_KUBERNETES_LOGS:-}" ] || cp -r "$CSIK8S_DIR/log" /var/log/pods "$CSIKIT_KUBERNETES_LOGS"
exit $rc
