//go:build !linux

package fusehost

import (
	"net"
	"os"

	"github.com/csikit/csikit/backends"
)

func checkPeer(*net.UnixConn) error { return backends.ErrUnsupported }

func sendHead(*net.UnixConn, []byte, *os.File) error { return backends.ErrUnsupported }

func receiveHead(*net.UnixConn) ([]byte, *os.File, error) {
	return nil, nil, backends.ErrUnsupported
}
