#!/bin/bash
# nfsd.sh: a kernel NFS server in the VM, for NFS 4.0 to 4.2; no idmapd, and without v3 no rpcbind and no statd.
#   nfsd.sh setup DISK [xfs|ext4]   the disk becomes /srv/export and is exported; the server runs
#   nfsd.sh v3                      the server anew, with NFS 3 too: 127.0.0.1:/srv/export; and what its clients need
#   nfsd.sh start | stop            the server; mounts of clients stay as they are
#   nfsd.sh export | unexport       /srv/export
#   nfsd.sh end                     all that setup made is taken down
#   nfsd.sh fill | drain            takes all the room that is left, and gives it back
set -u
# The root of the VM cannot be exported, so that the export is the root of NFS 4: server:/
opts=rw,no_root_squash,no_subtree_check,insecure,fsid=0
case ${1:-} in
setup)
	mkdir -p /srv/export /run/rpc_pipefs /var/lib/nfs/nfsdcld
	if [ "${3:-xfs}" = xfs ]; then mkfs.xfs -q -f "$2" && mount -o prjquota "$2" /srv/export; else mkfs.ext4 -q -O quota,project "$2" && mount -o prjquota "$2" /srv/export; fi || exit 1
	modprobe nfsd || exit 1
	mount -t nfsd nfsd /proc/fs/nfsd || exit 1
	mount -t rpc_pipefs rpc_pipefs /run/rpc_pipefs || exit 1
	: >/etc/exports
	# With it a server that starts does not wait 90 s for clients of its former life.
	nfsdcld -F -p /run/rpc_pipefs >/tmp/nfsdcld.log 2>&1 </dev/null &
	echo $! >/run/nfsd.pids
	sleep 0.2
	rpc.mountd -F -N 2 -N 3 >/tmp/mountd.log 2>&1 </dev/null &
	echo $! >>/run/nfsd.pids
	"$0" export && "$0" start
	;;
v3)
	grep -q '^_rpc:' /etc/passwd || echo '_rpc:x:107:65534::/run/rpcbind:/usr/sbin/nologin' >>/etc/passwd
	mkdir -p /run/rpcbind /var/lib/nfs/sm /var/lib/nfs/sm.bak && chown _rpc /run/rpcbind || exit 1
	rpcbind -f >/tmp/rpcbind.log 2>&1 </dev/null &
	echo $! >>/run/nfsd.pids
	for _ in $(seq 300); do rpcinfo -p >/dev/null 2>&1 && break; sleep 0.1; done
	rpc.nfsd 0
	# One that ends takes back what rpcbind knows of mountd, also of the next one's.
	old=$(pidof rpc.mountd) && kill "$old" || exit 1
	for _ in $(seq 300); do grep -qs '^State:.[^Z]' "/proc/$old/status" || break; sleep 0.1; done
	rpc.mountd -F -N 2 >/tmp/mountd.log 2>&1 </dev/null &
	echo $! >>/run/nfsd.pids
	rpc.statd -F --no-notify >/tmp/statd.log 2>&1 </dev/null &
	echo $! >>/run/nfsd.pids
	rpc.nfsd --no-udp 4 || exit 1
	for _ in $(seq 300); do rpcinfo -t 127.0.0.1 mountd 3 >/dev/null 2>&1 && rpcinfo -t 127.0.0.1 status 1 >/dev/null 2>&1 && exit 0; sleep 0.1; done
	rpcinfo -p >&2
	exit 1
	;;
end)
	rpc.nfsd 0
	exportfs -ua
	for p in $(cat /run/nfsd.pids); do
		kill "$p" 2>/dev/null || continue
		for _ in $(seq 20); do [ -d "/proc/$p" ] && ! grep -qs '^State:.Z' "/proc/$p/status" && sleep 0.1; done
		kill -9 "$p" 2>/dev/null
	done
	umount /proc/fs/nfsd /run/rpc_pipefs
	umount /srv/export || umount -l /srv/export
	;;
start) rpc.nfsd -N 3 --no-udp 4 ;;
stop) rpc.nfsd 0 ;;
export) exportfs -o "$opts" "*:/srv/export" ;;
unexport) exportfs -u "*:/srv/export" && exportfs -f ;;
fill) dd if=/dev/zero of=/srv/export/.filler bs=1M >/dev/null 2>&1; dd if=/dev/zero of=/srv/export/.filler2 bs=4k >/dev/null 2>&1; sync -f /srv/export; : ;;
drain) rm -f /srv/export/.filler /srv/export/.filler2; sync -f /srv/export ;;
*) sed -n 2,9p "$0" >&2; exit 2 ;;
esac
