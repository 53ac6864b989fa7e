#!/usr/bin/env bash
# in-ns.sh COMMAND...: runs COMMAND in mount, PID and network namespaces of its own: every address of the cluster is
# inside, PID 1 is ours, and when COMMAND ends everything that it started ends with it. What it writes is below one
# directory, CSIK8S_WORK, which goes too, as do the empty cgroups and loop devices over files in there.
set -uo pipefail
rc=0 u='' WORK='' ended=''
# unshare itself ignores signals: they are for what runs inside. It hears none before it has a trap, and so looks for a file too.
tell() {
  ended=1
  [ -z "$WORK" ] || : >"$WORK/ended"
  [ -z "$u" ] || kill -TERM $(pgrep -P "$u") 2>/dev/null
}
trap tell TERM INT HUP QUIT
WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/csikit-kubernetes.XXXXXX") || exit 1
export CSIK8S_WORK=$WORK CSIK8S_DIR=$WORK/state
# What is made for a while is below it too, whoever is killed. (Short: sockets are there, whose paths have a limit.)
export TMPDIR=$WORK/t
mkdir -p "$WORK/state" "$WORK/t"
[ -z "$ended" ] || tell
# If this script is killed unshare is, and then all that is inside.
setpriv --pdeathsig KILL unshare --mount --propagation private --pid --net --fork --kill-child --mount-proc -- bash -c '
set -e
p=
trap "[ -z \"\$p\" ] || kill -TERM \$p 2>/dev/null" TERM INT
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/netns
# New directories there are not the host'"'"'s. (To make them outside and remove them at the end would take them from
# another cluster: rmdir takes a mount point away in every other namespace.)
for d in /var/lib /var/log; do
  mkdir -p "$CSIK8S_WORK/overlay$d" "$CSIK8S_WORK/overlay-work$d"
  mount -t overlay overlay -o "lowerdir=$d,upperdir=$CSIK8S_WORK/overlay$d,workdir=$CSIK8S_WORK/overlay-work$d" "$d"
done
# On the disk itself, and mounts below them reach containers.
for d in /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers /srv /var/lib/csi-loopfile.csikit.dev; do
  mkdir -p "$d" "$CSIK8S_WORK$d"; mount --bind "$CSIK8S_WORK$d" "$d"; mount --make-rshared "$d"
done
# Not exec: bash as PID 1 reaps what loses its parent.
"$@" & p=$!
set +e
[ ! -e "$CSIK8S_WORK/ended" ] || kill -TERM $p 2>/dev/null
while :; do wait $p; rc=$?; kill -0 $p 2>/dev/null || exit $rc; done' in-ns "$@" & u=$!
trap '' PIPE # who reads our output may have been ended by the same signal
while :; do wait $u; rc=$?; kill -0 $u 2>/dev/null || break; done
# Cgroups of our pods alone: an empty one of another cluster's may be about to get its first process.
for pod in "$WORK"/var/lib/kubelet/pods/*; do find /sys/fs/cgroup -depth -type d -path "*/kubepods*/*pod${pod##*/}*" -exec rmdir {} + 2>/dev/null; done
rmdir /sys/fs/cgroup/{,*/}kubepods/{besteffort,burstable} /sys/fs/cgroup/{,*/}kubepods 2>/dev/null
# By device and inode: the mounts that gave the backing files their names are gone.
files=$(find "$WORK/srv" -type f -name img -printf '%D %i\n' 2>/dev/null | while read -r d i; do echo "$((d >> 8 & 0xfff)):$((d & 0xff | d >> 12 & 0xfff00)):$i"; done)
for l in $(losetup -n -l -O NAME,BACK-MAJ:MIN,BACK-INO 2>/dev/null | awk '{print $1":"$2":"$3}'); do
  case $'\n'$files$'\n' in *$'\n'"${l#*:}"$'\n'*)
    d=${l%%:*}; echo "in-ns: a loop device was left: $d" >&2; [ $rc = 0 ] && rc=9
    for m in "/sys/block/${d##*/}/holders"/dm-*; do [ ! -e "$m/dm/name" ] || cryptsetup close "$(cat "$m/dm/name")"; done # LUKS
    losetup -d "$d" ;;
  esac
done
if [ "${KEEP:-0}" = 1 ]; then echo "in-ns: kept $WORK" >&2; else rm -rf --one-file-system "$WORK"; fi
exit $rc
