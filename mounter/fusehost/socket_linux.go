package fusehost

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// checkPeer accepts root and this process's own user.
func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) {
		cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || got != nil {
		return errors.Join(err, got)
	}
	if cred.Uid != 0 && int64(cred.Uid) != int64(os.Geteuid()) {
		return fmt.Errorf("the peer is user %d (process %d), and neither root nor user %d", cred.Uid, cred.Pid, os.Geteuid())
	}
	return nil
}

// sendHead sends the length of a message, and with it a descriptor.
func sendHead(c *net.UnixConn, head []byte, dev *os.File) error {
	var oob []byte
	if dev != nil {
		oob = unix.UnixRights(int(dev.Fd()))
	}
	_, _, err := c.WriteMsgUnix(head, oob, nil)
	return err
}

// receiveHead is the other end of sendHead; the file, if there is one, is the
// caller's also when there is an error.
func receiveHead(c *net.UnixConn) ([]byte, *os.File, error) {
	head, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4*8))
	n, oobn, flags, _, err := c.ReadMsgUnix(head, oob)
	if err != nil {
		return nil, nil, err
	}
	file, err := received(oob[:oobn])
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = errors.New("too many descriptors")
	}
	if err == nil && n < len(head) {
		_, err = io.ReadFull(c, head[n:])
	}
	return head, file, err
}

func received(oob []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err == nil {
			fds = append(fds, got...)
		}
	}
	if len(fds) == 0 {
		return nil, nil
	}
	for _, fd := range fds[1:] {
		_ = unix.Close(fd) // nobody asked for it
	}
	f := os.NewFile(uintptr(fds[0]), "/dev/fuse")
	if len(fds) > 1 {
		return f, errors.New("more than one descriptor")
	}
	return f, nil
}
