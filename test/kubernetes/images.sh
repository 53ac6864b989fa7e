#!/usr/bin/env bash
# Makes docker-archive tarballs from local binaries (no registry) and imports
# them into containerd's k8s.io namespace under the names kubelet/e2e expect.
set -euo pipefail
. "$(dirname "$0")/env.sh"
W=$CSIK8S_DIR/images; mkdir -p "$W"
# pack NAME ROOTFS ENTRYPOINT-JSON -> $W/x.tar
pack() {
  local name=$1 root=$2 ep=$3 d; d=$(mktemp -d "$W/p.XXXX")
  tar --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 -C "$root" -cf "$d/layer.tar" .
  local diff cfg; diff=$(sha256sum "$d/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Entrypoint":%s,"Cmd":%s,"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z"}]}' "$ep" "${4:-[]}" "$diff" > "$d/config.json"
  cfg=$(sha256sum "$d/config.json" | cut -d' ' -f1); mv "$d/config.json" "$d/$cfg.json"
  printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$cfg" "$name" > "$d/manifest.json"
  tar -C "$d" -cf "$d.tar" manifest.json "$cfg.json" layer.tar
  ctr -a "$CSIK8S_DIR/containerd.sock" -n k8s.io images import "$d.tar" >/dev/null
  echo "imported $name $(du -m "$d.tar" | cut -f1)MiB"; rm -rf "$d" "$d.tar"
}
have() { [ -z "${FORCE:-}" ] && ctr -a "$CSIK8S_DIR/containerd.sock" -n k8s.io images ls -q | grep -qx "$1"; }
base() { # a busybox root
  local r=$1 a; mkdir -p "$r"/{bin,sbin,usr/bin,usr/sbin,usr/local/bin,etc,tmp,root,var,proc,sys,dev,uploads}
  chmod 1777 "$r/tmp"; cp /bin/busybox "$r/bin/busybox" 2>/dev/null || cp "$(command -v busybox)" "$r/bin/busybox"
  for a in $("$r/bin/busybox" --list); do [ -e "$r/bin/$a" ] || ln -s busybox "$r/bin/$a"; done
  ln -s /bin/env "$r/usr/bin/env"
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' > "$r/etc/passwd"
  printf 'root:x:0:\nnobody:x:65534:\n' > "$r/etc/group"
}
# The sidecars, as static binaries under the names that csikit manifests gives them.
sidecar() { # BINARY IMAGE
  have "$2" && return 0
  local r; r=$(mktemp -d "$W/r.XXXX"); chmod 755 "$r"; cp "$CSIK8S_BIN/$1" "$r/$1"; pack "$2" "$r" "[\"/$1\"]"; rm -rf "$r"
}
# driver BINARY IMAGE: a driver and the host tools that drivers call, with their libraries
driver() {
  local r t l; r=$(mktemp -d "$W/r.XXXX"); chmod 755 "$r"; base "$r"; rm -f "$r"/bin/{mount,umount,mke2fs,mkfs.ext2,fsck,fstrim,blkid,losetup,flock,tune2fs}
  mkdir -p "$r"/{etc,run,var/lib,lib64}; cp "$1" "$r/driver"
  for t in mkfs.ext4 mke2fs e2fsck resize2fs tune2fs dumpe2fs debugfs mkfs.xfs xfs_growfs xfs_db xfs_repair xfs_admin xfs_io mkfs.btrfs btrfs btrfstune fsck flock fsfreeze fstrim \
    mount umount blkid losetup cryptsetup lvm thin_check thin_dump thin_delta thin_repair thin_restore bash sh grep mknod; do
    t=$(PATH=$PATH:/usr/sbin:/sbin command -v $t 2>/dev/null) || continue
    rm -f "$r/bin/${t##*/}"; cp -L "$t" "$r/bin/${t##*/}"
    for l in $(ldd "$t" 2>/dev/null | grep -o '/[^ ]*' | sort -u); do [ -e "$r$l" ] || { mkdir -p "$r$(dirname "$l")"; cp -L "$l" "$r$l"; }; done
  done
  [ -e /etc/mke2fs.conf ] && cp /etc/mke2fs.conf "$r/etc/"
  pack "$2" "$r" '["/driver"]'; rm -rf "$r"
}
# images.sh driver BINARY IMAGE
if [ "${1:-}" = driver ]; then FORCE=1 driver "$2" "$3"; exit; fi
V=registry.k8s.io/sig-storage
for s in $(sed -n 's/.*"\(registry.k8s.io\/sig-storage\/[^"]*\)".*/\1/p' "$CSIK8S_HERE/../../cmd/csikit/internal/manifests/sidecars.go"); do
  n=${s#"$V"/}; n=${n%%:*}
  if [ -e "$CSIK8S_BIN/$n" ]; then sidecar "$n" "$s"; else echo "no $n: build.sh sidecars"; fi
done
if ! have "$PAUSE_IMAGE"; then r=$(mktemp -d "$W/r.XXXX"); cp "$CSIK8S_BIN/pause" "$r/pause"; pack "$PAUSE_IMAGE" "$r" '["/pause"]'; rm -rf "$r"; fi
if ! have "$BUSYBOX_IMAGE"; then r=$(mktemp -d "$W/r.XXXX"); chmod 755 "$r"; base "$r"; pack "$BUSYBOX_IMAGE" "$r" '[]' '["sh"]'; rm -rf "$r"; fi
# other names that the storage specs use only as "an image with a shell"; one
# spec needs GNU dd (oflag=nocache), so the host's dd, sh (busybox' sh would take
# its own dd whatever PATH says) and their libraries go in
for i in ${SHELL_IMAGES-registry.k8s.io/e2e-test-images/nginx:1.15-4 registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0}; do
  have "$i" && continue
  r=$(mktemp -d "$W/r.XXXX"); chmod 755 "$r"; base "$r"; ln -s busybox "$r/bin/bash"
  rm -f "$r/bin/dd" "$r/bin/sh"; cp -L /bin/dd /bin/sh "$r/bin/"
  for l in $({ ldd /bin/dd; ldd /bin/sh; } | grep -o '/[^ ]*' | sort -u); do mkdir -p "$r$(dirname "$l")"; cp -L "$l" "$r$l"; done
  pack "$i" "$r" '[]' '["sh"]'; rm -rf "$r"
done
if [ -z "${NO_AGNHOST:-}" ] && [ -x "$CSIK8S_BIN/agnhost" ] && ! have "$AGNHOST_IMAGE"; then
  r=$(mktemp -d "$W/r.XXXX"); chmod 755 "$r"; base "$r"; cp "$CSIK8S_BIN/agnhost" "$r/agnhost"; ln -s agnhost "$r/agnhost-2"
  # bash is asked for by name in some specs; busybox's ash stands in
  ln -s busybox "$r/bin/bash" 2>/dev/null || true
  # hostexec pods enter /rootfs/proc/1/ns/mnt; where PID 1 is closed even to root,
  # take kubelet's mount namespace instead
  rm -f "$r/bin/nsenter" "$r/usr/bin/nsenter"
  cat > "$r/usr/bin/nsenter" <<'W'
#!/bin/sh
case $1 in
--mount=/rootfs/proc/1/ns/mnt)
  if ! readlink /rootfs/proc/1/ns/mnt >/dev/null 2>&1; then
    for p in /rootfs/proc/[0-9]*; do
      read -r c < $p/comm && [ "$c" = kubelet ] && { shift; set -- --mount=$p/ns/mnt "$@"; break; }
    done 2>/dev/null
  fi ;;
esac
exec /bin/busybox nsenter "$@"
W
  chmod 755 "$r/usr/bin/nsenter"
  pack "$AGNHOST_IMAGE" "$r" '["/agnhost"]' '["pause"]'; rm -rf "$r"
fi
