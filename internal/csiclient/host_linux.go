package csiclient

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// SameHost tells whether the process that serves a Unix socket has this one's
// mounts. No answer is no.
func SameHost(socket string) bool {
	if socket == "" {
		return false
	}
	pid, err := Peer(socket)
	if err != nil || pid == 0 {
		return false
	}
	theirs, err := os.Readlink("/proc/" + strconv.Itoa(int(pid)) + "/ns/mnt")
	if err != nil {
		return false
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	return err == nil && ours == theirs
}

// Peer is the process that listens at a socket, as this PID namespace calls it.
func Peer(socket string) (pid int32, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer conn.Close() //nolint:errcheck // nothing was sent
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || cerr != nil {
		return 0, fmt.Errorf("%w %w", err, cerr)
	}
	return cred.Pid, nil
}
